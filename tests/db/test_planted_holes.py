"""A thousand holes of five kinds are planted into a clean market and looked for. `pytest -s` prints what was found.

The market is made up by a seed, which is printed; `HOLES_SEED=n` repeats it. It goes in by the front door, a source of rows
as sources write them. The answers are the list of what was planted.
"""

import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from rows_source import Rows
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.calendars import calendar
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.quality.check import check

NOW = datetime(2024, 8, 6, 6, 0, tzinfo=UTC)  # 15:00 in Seoul: the 5th has ended, the 6th has not
FIRST, LAST = date(2022, 1, 3), date(2024, 8, 5)
KINDS = ("missing day", "missing run", "no-trade", "halted", "late")
EACH = 200
INSTRUMENTS = 160


def clean_market(seed: int) -> pd.DataFrame:
    """Rows of a market without holes: random walks in won, each day of the calendar traded."""
    chance = np.random.default_rng(seed)
    days = calendar("KRX").days(FIRST, LAST).tolist()
    frames = []
    for number in range(INSTRUMENTS):
        begin = int(chance.integers(0, len(days) // 3))
        closes = np.round(20_000 * np.exp(np.cumsum(chance.normal(0, 0.01, len(days) - begin)))).astype(int)
        opens = closes + chance.integers(-50, 50, len(closes))
        frame = pd.DataFrame({"code": f"{number + 1:05}0", "date": days[begin:], "open": opens, "close": closes})
        frame["high"], frame["low"] = np.maximum(opens, closes) + 10, np.minimum(opens, closes) - 10
        frames.append(frame.assign(volume=chance.integers(100, 100_000, len(frame))))
    return pd.concat(frames, ignore_index=True)


def plant(
    rows: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, date], str], dict[str, date]]:
    """Return rows with holes; unfinished rows; {(code, day): which kind was planted there}; {code: the last day after which
    nobody was asked about it}."""
    chance = np.random.default_rng(seed + 1)
    planted: dict[tuple[str, date], str] = {}
    tail = calendar("KRX").days(FIRST, LAST).tolist()[-5:]
    codes = sorted(set(rows["code"]))
    forgotten = list(chance.choice(codes, EACH // len(tail), replace=False))
    planted |= {(code, day): "late" for code in forgotten for day in tail}
    held = {code: frame["date"].tolist() for code, frame in rows.groupby("code")}

    def free(code: str, days: list[date]) -> bool:
        return not any((code, day) in planted for day in days) and not set(days) & {held[code][0], *tail}

    for kind in KINDS[:-1]:
        count = 0
        while count < EACH:
            code = str(chance.choice(codes))
            length = int(chance.integers(3, 9)) if kind == "missing run" else int(chance.integers(1, 4))
            length = 1 if kind == "missing day" else min(length, EACH - count)
            at = int(chance.integers(1, len(held[code]) - 20))
            days = held[code][at : at + length]
            if not free(code, days):
                continue
            planted |= {(code, day): kind for day in days}
            count += len(days)
    where = pd.Series([planted.get(key, "") for key in zip(rows["code"], rows["date"], strict=True)], index=rows.index)
    rows = rows.astype(dict.fromkeys(("open", "high", "low", "close", "volume"), "float64"))
    still = where.isin(["no-trade", "halted"])
    rows["close"] = rows["close"].where(~still).groupby(rows["code"]).ffill()
    rows.loc[still, "volume"] = 0
    flat = where == "no-trade"
    for name in ("open", "high", "low"):
        rows.loc[flat, name] = rows.loc[flat, "close"]
        rows.loc[where == "halted", name] = 0
    late = rows[where == "late"]
    unfinished = late[late["code"].isin(forgotten[::2])]  # of the others there is not even that
    asked = dict.fromkeys(forgotten, held[forgotten[0]][-6])
    return rows[~where.isin(["missing day", "missing run", "late"])], unfinished, planted, asked


def load(loader: Engine, source: Rows, asked: Mapping[str, date]) -> None:
    clock = fixed_clock(NOW)
    with ledger.notebook_run(loader, None, job="collect_daily", clock=clock) as run_id:
        sync_instruments(loader, source, run_id=run_id, clock=clock)
        collect_daily(loader, source, run_id=run_id, clock=clock).check()
        with loader.begin() as conn:
            for code, day in asked.items():
                conn.execute(
                    text("""
                        INSERT INTO ops.cursors (instrument_id, timeframe, source, asked_from, asked_until, run_id)
                        SELECT id, '1d', :source, :first, :until, :run_id FROM live.instruments WHERE code = :code
                        ON CONFLICT (instrument_id, timeframe, source) DO UPDATE SET asked_until = excluded.asked_until
                    """),
                    {"source": source.name, "first": FIRST, "run_id": run_id, "code": code,
                     "until": datetime(day.year, day.month, day.day, 12, tzinfo=UTC)},
                )  # fmt: skip


def ledger_of(loader: Engine) -> dict[tuple[str, date], str]:
    with loader.connect() as conn:
        rows = conn.execute(text("SELECT code, day, kind FROM api.gaps WHERE timeframe = '1d'")).all()
    return {(code, day): kind for code, day, kind in rows}


def compared(planted: Mapping[tuple[str, date], str], found: Mapping[tuple[str, date], str]) -> pd.DataFrame:
    """The confusion table: what was planted, and what it was found to be."""
    pairs = Counter((planted.get(key, "nothing"), found.get(key, "not found")) for key in planted.keys() | found.keys())
    table = pd.Series(pairs).unstack(fill_value=0)
    return table.reindex([kind for kind in (*KINDS, "nothing") if kind in table.index])


RIGHT = {"missing day": "missing", "missing run": "missing", "no-trade": "no-trade", "halted": "halted", "late": "late"}


def test_a_thousand_planted_holes_are_all_found_with_their_kind_and_nothing_else_is(loader):
    seed = int(os.environ.get("HOLES_SEED", "20240805"))
    rows, unfinished, planted, asked = plant(clean_market(seed), seed)
    assert Counter(planted.values()) == dict.fromkeys(KINDS, EACH)
    load(loader, Rows(rows, NOW, unfinished), asked)
    clock = fixed_clock(NOW)
    with ledger.notebook_run(loader, None, job="check", clock=clock) as run_id:
        result = check(loader, "KRX", run_id=run_id, clock=clock)
    found = ledger_of(loader)
    table = compared(planted, found)
    false_alarms = sum(1 for key in found if key not in planted)
    expected = result.counts["expected"]
    print(  # noqa: T201 - for `pytest -s`
        f"\nseed {seed}: {expected:,} expected bars, {len(planted):,} holes planted, false alarms {false_alarms} "
        f"({false_alarms / expected:.4%})\n{table.to_string()}\n{result.table().to_string(index=False)}"
    )
    assert {key: found.get(key) for key in planted} == {key: RIGHT[kind] for key, kind in planted.items()}
    assert false_alarms <= 0.001 * expected
    # Every expected bar is in one state: what is expected is what the clean market has.
    assert expected == len(clean_market(seed))
    assert result.counts == {"expected": expected, "present": expected - 5 * EACH, "explained": 2 * EACH,
                             "missing": 2 * EACH, "late": EACH}  # fmt: skip


@pytest.mark.shared
def test_holes_planted_into_real_histories_are_found_with_their_kind(loader, shared_data):
    """Of KOSPI's histories those that have a row for every trading day of two and a half years."""
    seed = 20240806
    real = pd.read_parquet(shared_data / "krx_daily_kospi_2020_2026.parquet")
    real["date"] = pd.to_datetime(real["date"]).dt.date
    real = real[(real["date"] >= FIRST) & (real["date"] <= LAST)]
    days = len(calendar("KRX").days(FIRST, LAST))
    sizes = real.groupby("code", observed=True).size()
    traded = real.groupby("code", observed=True)["volume"].min() > 0
    whole = sizes.index[(sizes == days) & traded.to_numpy()]
    rows = real[real["code"].isin(whole)].assign(code=lambda frame: frame["code"].astype("str"))
    rows, unfinished, planted, asked = plant(rows.sort_values(["code", "date"]).reset_index(drop=True), seed)
    load(loader, Rows(rows, NOW, unfinished), asked)
    clock = fixed_clock(NOW)
    with ledger.notebook_run(loader, None, job="check", clock=clock) as run_id:
        result = check(loader, "KRX", run_id=run_id, clock=clock)
    found = ledger_of(loader)
    alarms = {key for key in found if key not in planted}
    expected = result.counts["expected"]
    print(  # noqa: T201
        f"\n{len(whole)} real histories, seed {seed}: {expected:,} expected bars, {len(alarms)} false alarms "
        f"({len(alarms) / expected:.4%})\n{compared(planted, found).to_string()}"
    )
    assert {key: found.get(key) for key in planted} == {key: RIGHT[kind] for key, kind in planted.items()}
    assert len(alarms) <= 0.001 * expected
