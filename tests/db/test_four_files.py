"""The four overlapping files of KRX prices, loaded as sources one after the other: what is read of them is one series.

What is expected is worked out of the files themselves by plain pandas. `pytest -s` prints the counts.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients import open_source
from chartinsight_lib.clock import fixed_clock
from chartinsight_lib.collect import collect_daily
from chartinsight_lib.db import bars
from chartinsight_lib.db.engine import open_database
from chartinsight_lib.db.migrate import upgrade
from chartinsight_lib.db.roles import Role
from chartinsight_lib.listing import sync_instruments
from chartinsight_lib.settings import Settings

pytestmark = pytest.mark.shared

CLOCK = fixed_clock(datetime(2026, 6, 1, 12, tzinfo=UTC))
COLUMNS = ["code", "date", "open", "high", "low", "close", "volume"]
VENDORS = (
    "yahoo_2017", "yahoo_2019", "naver_frgn_page_2020", "creon_2022", "fdr_naver_2022", "kiwoom_2023", "kiwoom_rest_2025",
    "naver_page_2026",
)  # fmt: skip
"""The parts of the fourth file, in the order in which they were fetched."""
KOSPI = "kospi_2020_2026"
ORDER = ("fdr_2022", "all_2023_2025", *VENDORS, KOSPI)


@dataclass(frozen=True)
class Held:
    """What stands in the database after all loads, and the files it came from."""

    files: dict[str, pd.DataFrame]
    """{name: the traded rows of a source whose day was finished}; date is datetime64."""
    adjusted: pd.DataFrame
    raw: pd.DataFrame
    factors: pd.DataFrame
    found: pd.DataFrame
    """api.restatements."""
    quarantine: pd.DataFrame
    refused: dict[str, set[str]]
    """{source: codes of which the load stored nothing}."""


def collect(engine: Engine, path: Path, **options: str) -> set[str]:
    """Load a file by the front door, and return the codes that were refused."""
    source = open_source(f"files:{path}", market="KRX", **options)
    with ledger.notebook_run(engine, None, job="collect_daily", clock=CLOCK) as run_id:
        sync_instruments(engine, source, run_id=run_id, clock=CLOCK)
        return set(collect_daily(engine, source, run_id=run_id, clock=CLOCK).errors)


def read(engine: Engine, basis: str) -> pd.DataFrame:
    """Return code, date, open, high, low, close, volume of every final bar, as the library reads them."""
    with engine.connect() as conn:
        panel = bars.panel(conn, "KRX", basis=basis)
        codes = pd.read_sql("SELECT id, code FROM live.instruments", conn).set_index("id")["code"]
    code = np.repeat(codes.loc[panel.ids].to_numpy(), np.diff(panel.bounds))
    frame = pd.DataFrame({"code": code, "date": panel.ts.tz_localize(None).astype("datetime64[us]")})
    return frame.assign(**{name: panel.columns[name] for name in COLUMNS[2:]})


@pytest.fixture(scope="module")
def held(shared_data: Path) -> Iterator[Held]:
    whole = {name: pd.read_parquet(shared_data / f"krx_daily_{name}.parquet") for name in (*ORDER[:2], KOSPI)}
    # All that the newest file meets, and some of the others: enough to fail, and half a minute shorter.
    met, others = set(whole[KOSPI]["code"]), sorted(set(whole["fdr_2022"]["code"]) - set(whole[KOSPI]["code"]))
    chosen = met | set(others[::8])
    compared = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet")
    whole |= {name: compared.loc[compared["source"] == name, COLUMNS] for name in VENDORS}
    whole |= {name: whole[name][whole[name]["code"].isin(chosen)] for name in ORDER[:2]}
    home = Path(tempfile.mkdtemp(prefix="chartinsight-test-"))
    home.chmod(0o755)
    with open_database(Settings(home=home, _env_file=None)) as database:
        upgrade(database)
        engine = database.engine(Role.LOADER)
        refused = {}
        for name in ORDER:
            path = home / f"{name}.parquet"
            whole[name].to_parquet(path, index=False)
            refused[name] = collect(engine, path, last_day="final" if "fdr" in name else "provisional")
        views = ("SELECT code, ex_date, kind, price_factor, source FROM api.factors", "SELECT * FROM api.restatements",
                 "SELECT code, ts, rule, action, source FROM ops.quarantine")  # fmt: skip
        with engine.connect() as conn:
            factors, found, quarantine = (pd.read_sql(text(view), conn) for view in views)
        adjusted, raw = read(engine, "price"), read(engine, "raw")
        engine.dispose()
    shutil.rmtree(home, ignore_errors=True)
    for table in (factors, found, quarantine):
        table["source"] = table["source"].str.removeprefix("files:").str.removesuffix(".parquet")
    yield Held(
        {name: finished(name, whole[name]) for name in ORDER}, adjusted, raw, factors, found, quarantine, refused
    )


def finished(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of traded, finished days; of a day told in two ways none."""
    rows = rows.assign(date=pd.to_datetime(rows["date"]).astype("datetime64[us]"))
    if "fdr" not in name:
        rows = rows[rows["date"] < rows["date"].max()]
    traded = (rows[COLUMNS[2:6]] > 0).all(axis=1) & ~(
        (rows["open"] == rows["high"]) & (rows["high"] == rows["low"]) & (rows["volume"] == 0)
    )
    return rows[traded].drop_duplicates().drop_duplicates(["code", "date"], keep=False)


def say(found: str) -> None:
    """Tell the reader of `pytest -s` what was found."""
    sys.stdout.write(f"\n{found}\n")


def closes(rows: pd.DataFrame) -> pd.Series:
    return rows.set_index(["code", "date"])["close"]


def without(rows: pd.DataFrame, others: pd.MultiIndex) -> pd.DataFrame:
    return rows[~pd.MultiIndex.from_frame(rows[["code", "date"]]).isin(others)]


# --- no mixed basis -------------------------------------------------------------------------------------


def test_every_move_that_is_read_is_told_by_some_file(held):
    """Between two days that follow one another the adjusted close moves as it does in a single file that has both."""
    read = held.adjusted.sort_values(["code", "date"])
    before = read.groupby("code")[["date", "close"]].shift()
    pairs = read.assign(left=before["date"], move=read["close"] / before["close"]).dropna()
    left = pd.MultiIndex.from_frame(pairs[["code", "left"]])
    right = pd.MultiIndex.from_frame(pairs[["code", "date"]])
    told = np.zeros(len(pairs), dtype=bool)
    for rows in held.files.values():
        series = closes(rows)
        old, new = series.reindex(left).to_numpy(), series.reindex(right).to_numpy()
        told |= np.abs(new / old / pairs["move"].to_numpy() - 1) <= 3 / old + 3 / new + 2e-4  # won lost in rounding
    say(f"{len(pairs):,} moves from day to day, {int((~told).sum())} told by no file")
    assert told.all(), pairs[~told].to_string(max_rows=40)


def test_over_the_span_of_the_newest_file_it_is_what_is_read(held):
    """But for won: bars of older files stay, and are brought to its basis by a factor."""
    newest, read = closes(held.files[KOSPI]), closes(held.adjusted)
    assert newest.index.isin(read.index).all()
    ratio = (read[newest.index] / newest).groupby("code")
    # A file that restates and brings no newer bar does not move the basis: all it tells of is read in one proportion.
    elsewhere = ratio.median().round(4).loc[lambda one: one != 1]
    proportion = elsewhere.reindex(newest.index.get_level_values("code")).fillna(1.0).to_numpy()
    last = newest.reset_index().groupby("code")["date"].max()
    assert (last[elsewhere.index] < last.max()).all()
    off = (read[newest.index] / proportion - newest).abs()
    say(f"{len(newest):,} bars, {int((off < 1e-6).sum()):,} exact; in proportion: {elsewhere.to_dict()}")
    # Prices that their vendor restated twice, to the won each time, are off by more than one.
    assert (off <= np.maximum(1.0, 1e-3 * newest)).all()
    as_stored = closes(held.raw)[newest.index] == newest
    assert (off[as_stored & (proportion == 1)] < 1e-6).all(), (
        "what came from the newest file is read as it stands there"
    )


def test_every_finished_bar_of_every_file_is_held_or_the_reason_is_recorded(held):
    stored = pd.MultiIndex.from_frame(held.raw[["code", "date"]])
    rejected = held.quarantine[held.quarantine["action"] == "rejected"].dropna(subset="ts")
    rejected = rejected.assign(date=rejected["ts"].dt.tz_localize(None).astype("datetime64[us]"))
    disagreeing = held.found[held.found["verdict"] == "disagreeing"]
    unnamed = {}
    for name, rows in held.files.items():
        missing = without(rows, stored)
        missing = without(missing, pd.MultiIndex.from_frame(rejected.loc[rejected["source"] == name, ["code", "date"]]))
        known = set(disagreeing.loc[disagreeing["source"] == name, "code"])
        assert known == held.refused[name]
        unnamed[name] = int((~missing["code"].isin(known)).sum())
    assert set(unnamed.values()) == {0}, unnamed


def test_where_nothing_bridges_two_files_reads_begin_at_the_newer_one_and_all_is_held(held):
    """An instrument of which only the files of 2022 and of 2023 tell: between them nobody knows what happened."""
    only = set(held.files["fdr_2022"]["code"]) & set(held.files["all_2023_2025"]["code"])
    only -= {code for name in (*VENDORS, KOSPI) for code in held.files[name]["code"].unique()}
    newer, read = held.files["all_2023_2025"], held.adjusted
    assert len(only) > 20
    first = newer[newer["code"].isin(only)].groupby("code")["date"].min()
    assert read[read["code"].isin(only)].groupby("code")["date"].min().equals(first)
    open_seams = held.factors[held.factors["kind"] == "unknown"].set_index("code")["ex_date"]
    assert (pd.to_datetime(open_seams[list(only)]) == first[list(only)]).all()
    older = held.files["fdr_2022"]
    stored = pd.MultiIndex.from_frame(held.raw[["code", "date"]])
    assert len(without(older[older["code"].isin(only)], stored)) <= 40  # rejected ones


# --- restated history ------------------------------------------------------------------------------------


def test_restated_histories_are_found_and_nothing_else_is(held, shared_data):
    listed = pd.read_csv(shared_data / "nasties" / "restated_history.csv", dtype={"code": str}).set_index("code")
    in_both = set(held.files["fdr_2022"]["code"].unique()) & set(held.files[KOSPI]["code"].unique())
    listed = listed[listed.index.isin(in_both)]
    # Listed as well are closes that differ by won that were lost in rounding, with a ratio of 1.
    restated = listed[(listed["ratio_median"] - 1).abs() > 1e-3]
    assert (len(listed), sorted(listed.index.difference(restated.index))) == (39, ["007690"])
    rebased = held.found[(held.found["source"] == KOSPI) & (held.found["verdict"] == "rebased")]
    ratios = rebased.set_index("code")["ratio"].reindex(restated.index).dropna()  # new / old; listed is old / new
    right = ratios.index[(ratios * restated["ratio_median"] - 1).abs() <= 1e-3]
    alarms = held.found[held.found["verdict"] != "apart"]
    told = {name: closes(rows[rows["code"].isin(alarms["code"])]).sort_index() for name, rows in held.files.items()}
    false = [
        one for one in alarms[["source", "code"]].itertuples(index=False) if not differs(told, one.source, one.code)
    ]
    say(f"found {len(ratios)} of {len(restated)} restated histories, {len(right)} with the listed ratio; "
          f"{len(alarms)} recorded, {len(false)} falsely")  # fmt: skip
    assert sorted(right) == sorted(restated.index)
    assert false == []


def differs(told: dict[str, pd.Series], source: str, code: str) -> bool:
    """Whether a file tells another close than one loaded before it, by more than a won."""
    mine = told[source].loc[code]
    others = [told[name].loc[code] for name in ORDER[: ORDER.index(source)] if code in told[name]]
    return any(((mine - other).abs() > 1).any() for other in others)


# --- official raw prices ---------------------------------------------------------------------------------

END = pd.Timestamp("2026-05-31")


def test_official_raw_closes_are_the_adjusted_ones_times_steps_that_are_known_events(held, shared_data):
    """On each of 26 days, for every instrument of the newest file: equal, or off by a ratio that steps to 1 at known events."""
    official = pd.read_parquet(shared_data / "krx_crosssection_raw.parquet")
    official = official.assign(date=pd.to_datetime(official["date"]).astype("datetime64[us]"))
    rows = official[(official["open"] > 0) & official["code"].isin(held.files[KOSPI]["code"].unique())]
    rows = rows.merge(held.adjusted[["code", "date", "close"]], on=["code", "date"], suffixes=("", "_read"))
    rows = rows.sort_values(["code", "date"])
    rows["ratio"] = rows["close"] / rows["close_read"]
    rows["error"] = np.maximum(1e-3, 1.5 / rows["close"] + 1.5 / rows["close_read"])
    why = reasons(held, shared_data, official)
    counts: dict[str, int] = {}
    unexplained, explained_rows = [], 0
    for code, one in rows.groupby("code"):
        ratios, errors, days = [*one["ratio"], 1.0], [*one["error"], 0.0], [*one["date"], END]
        for at in range(len(one)):
            step = ratios[at] / ratios[at + 1]
            if abs(step - 1) > max(errors[at], errors[at + 1]):
                reason = why(str(code), days[at], days[at + 1], step)
                counts[reason] = counts.get(reason, 0) + 1
                if not reason:
                    unexplained.append((code, days[at], days[at + 1], step))
        explained_rows += int((np.abs(one["ratio"] - 1) > 1e-12).sum())
    say(f"{len(rows):,} common rows of {rows['code'].nunique()} instruments: {len(rows) - explained_rows:,} equal, "
          f"{explained_rows:,} off by known steps: {counts}; unexplained steps: {len(unexplained)}")  # fmt: skip
    assert unexplained == []


def reasons(held: Held, shared_data: Path, official: pd.DataFrame):
    """Return a function that says why the ratio of raw to adjusted closes of a code steps between two days, "" if nothing does:
    an event is listed; the issuer's number of shares changes (new ones are listed some months after the ex-day); or, after the
    last official day, the file of June 2025 and that of May 2026 tell the same step."""
    events = pd.read_csv(
        shared_data / "nasties" / "adjustment_events_kospi.csv",
        dtype={"code": str},
        parse_dates=["after", "not_later_than"],
    )
    weekly = pd.read_parquet(shared_data / "krx_weekly_close_raw.parquet")
    listing = pd.read_parquet(shared_data / "krx_listing.parquet").assign(date="2026-03-22")
    shares = pd.concat([rows[["code", "date", "shares"]] for rows in (official, weekly, listing)])
    shares["date"] = pd.to_datetime(shares["date"])
    shares["issuer"] = shares["code"].str[:5]  # of common and preferred shares
    shares = dict(list(shares.drop_duplicates(["code", "date"]).groupby("issuer")))
    june, may = closes(held.files["all_2023_2025"]), closes(held.files[KOSPI])
    both = june.index.intersection(may.index)
    later = (june[both] / may[both]).groupby("code").last()

    def why(code: str, here: pd.Timestamp, there: pd.Timestamp, step: float) -> str:
        if ((events["code"] == code) & (events["after"] < there) & (events["not_later_than"] > here)).any():
            return "listed"
        if there == END:
            return "told by two files" if abs(later.get(code, np.inf) / step - 1) < 5e-3 else ""
        issued = shares[code[:5]]
        issued = issued[(issued["date"] >= here) & (issued["date"] <= there + pd.Timedelta(days=200))]
        return "shares" if (issued.groupby("code")["shares"].nunique() > 1).any() else ""

    return why


def test_kakao_is_read_through_its_split_as_every_file_tells_it(held, shared_data):
    """5:1 on 2021-04-15; 558,000 won became a base price of 112,000, which is 111,600 rounded up to the tick: 4.98214, not 5;
    and the vendor cuts off what is less than a won.
    """
    read = held.adjusted[held.adjusted["code"] == "035720"].set_index("date")
    told = pd.read_csv(shared_data / "nasties" / "split_5to1_035720.csv", dtype={"code": str}, parse_dates=["date"])
    told = told[told["open"] > 0]
    assert told["source"].nunique() == 3
    assert (read.loc[told["date"], "close"].to_numpy() == told["close"].to_numpy()).all()
    official = pd.read_parquet(shared_data / "krx_crosssection_raw.parquet")
    official = official[official["code"] == "035720"].assign(date=lambda one: pd.to_datetime(one["date"]))
    ratio = official.set_index("date")["close"] / read["close"].reindex(official["date"])
    before, after = ratio[:"2021-04-14"], ratio["2021-04-15":]
    assert (len(before), len(after)) == (6, 20)
    assert (after == 1).all()
    raw = official.set_index("date")["close"][before.index]
    assert (np.floor(raw * (112_000 / 558_000)) == read["close"][before.index]).all()


# --- Samsung, 50:1 on 2018-05-04 -------------------------------------------------------------------------


@pytest.fixture
def samsung(shared_data, tmp_path):
    """Writes Samsung's rows of one vendor into a file."""
    compared = pd.read_parquet(shared_data / "krx_daily_vendor_compare.parquet")
    compared = compared[compared["code"] == "005930"]

    def write(vendor: str) -> Path:
        path = tmp_path / f"{vendor}.parquet"
        compared.loc[compared["source"] == vendor, COLUMNS].to_parquet(path, index=False)
        return path

    return write


@pytest.fixture
def official(shared_data) -> pd.DataFrame:
    """The exchange's own raw rows of 2018-04-27 to 2018-05-04, those that traded; by date."""
    answer = shared_data / "raw_files" / "krx_json" / "StockOhlcvByDate_test_ohlcv_with_not_adjusted_0.json"
    rows = pd.DataFrame(json.loads(answer.read_text())["output"]).set_index("TRD_DD")
    names = {
        "TDD_OPNPRC": "open",
        "TDD_HGPRC": "high",
        "TDD_LWPRC": "low",
        "TDD_CLSPRC": "close",
        "ACC_TRDVOL": "volume",
    }
    rows = rows[list(names)].rename(columns=names).replace(",", "", regex=True).astype("float64")
    rows.index = pd.to_datetime(rows.index).astype("datetime64[us]")
    return rows[rows["open"] > 0].sort_index()


@pytest.mark.parametrize("adjusting", ["creon_2022", "fdr_naver_2022"])
def test_raw_prices_of_samsung_learn_its_split_from_an_adjusting_vendor(loader, samsung, official, adjusting):
    assert collect(loader, samsung("naver_frgn_page_2020")) == set()
    assert collect(loader, samsung(adjusting), last_day="final") == set()
    with loader.connect() as conn:
        statement = text("SELECT kind, price_factor, volume_factor FROM api.factors WHERE ex_date = '2018-05-04'")
        assert conn.execute(statement).all() == [("split", 0.02, 50.0)]
    assert official.index.strftime("%Y-%m-%d").tolist() == ["2018-04-27", "2018-05-04"]
    raw = read(loader, "raw").set_index("date").loc[official.index, list(official)]
    assert raw.equals(official.astype(raw.dtypes))
    adjusted = read(loader, "price").set_index("date").loc[official.index]
    before = official.iloc[0]
    assert adjusted.iloc[0][["open", "high", "low", "close"]].tolist() == [
        before[name] / 50 for name in ("open", "high", "low", "close")
    ]
    assert adjusted["volume"].tolist() == [606_216 * 50, 39_565_391]
    assert adjusted["close"].tolist() == [53_000, 51_900]


def test_adjusted_prices_of_samsung_stay_adjusted_when_raw_ones_come(loader, samsung, official):
    collect(loader, samsung("fdr_naver_2022"), last_day="final")
    before = read(loader, "price")
    collect(loader, samsung("naver_frgn_page_2020"))
    pd.testing.assert_frame_equal(read(loader, "price"), before)
