"""Source -> normalise -> store: the only place where the three meet.

One transaction per batch holds its bars, gaps, factors, rejected rows and its record; a batch that fails leaves nothing but the
record of its failure, and the next one goes on. Everything can be repeated: the second time changes no row.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pandas as pd
from sqlalchemy import Connection, Engine

from chartinsight_lib import ledger, normalise
from chartinsight_lib.base_prices import differing, learn_chain
from chartinsight_lib.clients.base import Batch, IntradaySource, LiveSource, Source, Windowed
from chartinsight_lib.clock import Clock
from chartinsight_lib.db import factors as chains
from chartinsight_lib.db import query, stage, store
from chartinsight_lib.db.instruments import instrument_ids
from chartinsight_lib.db.rows import REFUSALS, refusal
from chartinsight_lib.domain import COLLECTED, FACTOR, MARKETS, Flag
from chartinsight_lib.errors import (
    ChartInsightError,
    ConfigError,
    Fenced,
    ItemsUnavailable,
    Passing,
    RunFailed,
    SchemaError,
    reason,
)
from chartinsight_lib.factors import learn_factors
from chartinsight_lib.joining import Told, join_staged

_log = logging.getLogger(__name__)

DAILY, INTRADAY = "1d", "5m"
INTRADAY_LENGTH = timedelta(minutes=5)
SKEW = timedelta(seconds=10)
"""So far may the clocks of this machine and of a source be apart: a bar that ended less than this ago may not have ended there."""


@dataclass(slots=True)
class Report:
    """What a collection did, item by item."""

    job: str
    items: dict[str, Mapping[str, int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per item and a column per count, the last row their sum; for the last cell of a notebook."""
        table = pd.DataFrame.from_dict(self.items, orient="index").fillna(0).astype("int64")
        if len(table) > 1:
            table.loc["total"] = table.sum()
        return table

    def check(self) -> None:
        """Raise RunFailed when an item failed, ItemsUnavailable when each that did may succeed later: what succeeded is stored."""
        if not self.errors:
            return
        (item, why), failed, all_of_them = (
            next(iter(self.errors.items())),
            len(self.errors),
            len(self.items | self.errors),
        )
        # The runner tries again where that may help, and knows it by the name of the error.
        kind = ItemsUnavailable if all(isinstance(why, Passing) for why in self.errors.values()) else RunFailed
        raise kind(
            f"{self.job}: {failed} of {all_of_them} items failed{'; the others are stored' if failed < all_of_them else ''}. "
            f"{'First: ' if failed > 1 else ''}{item}: {why}{' The others are in api.run_items.' if failed > 1 else ''}"
        )


def collect_daily(engine: Engine, source: Source, *, run_id: UUID, clock: Clock, again: bool = False) -> Report:
    """Store the source's daily bars: what is new or changed, no bar of an unfinished day as final, no bar twice.

    A batch or an instrument that cannot be stored is named in the report, and the others are stored.

    Args:
        again: ask for the whole history, also of what is held; it is compared, and what is the same stays as it is.
    Raises:
        ConfigError, SchemaError, UpstreamError: the source itself cannot be read; batches before that are stored.
        Fenced: the run was ended meanwhile; batches before that are stored.
    """
    held: dict[str, date] = {}
    if not again:
        with engine.connect() as conn:
            # Bars of another source say nothing of how far back this one was asked.
            newest = query.newest_final(conn, source.market, DAILY, source.name)
            since = source.since if isinstance(source, Windowed) else date.max
            short = store.asked_later(conn, source.market, DAILY, since, source=source.name)
        held = {code: ts.date() for code, ts in newest.items() if code not in short}
    load = _Load(source, run_id, clock)
    return _collect(engine, load, "collect_daily", source.daily(held), _store_days)


def collect_quotes(engine: Engine, source: Source, *, run_id: UUID, clock: Clock) -> Report:
    """Store the running daily bars of a whole market, all of them provisional; a hundred instruments are one item.

    Raises:
        ConfigError: the source knows no running day.
    """
    quotes = _live(source).quotes()
    return _collect(engine, _Load(source, run_id, clock), "collect_quotes", quotes, _store_days)


def collect_intraday(
    engine: Engine,
    source: Source,
    codes: Sequence[str],
    *,
    run_id: UUID,
    clock: Clock,
    watched: Sequence[str] = (),
    most_traded: int = 10,
) -> Report:
    """Store five-minute bars of some instruments; the bar that is still forming is provisional.

    Args:
        codes: which; empty: all that files hold; of a live source those `watched`, else the `most_traded` stocks of the newest
            final day.
    Raises:
        ConfigError: the source has no bars of less than a day.
    """
    if not isinstance(source, IntradaySource):
        raise ConfigError(
            f"source {source.name!r}: it has no bars of less than a day. Choose kiwoom, simulated or files of five-minute bars."
        )
    wanted = list(codes) or (list(watched) if isinstance(source, LiveSource) else [])
    with engine.connect() as conn:
        if not wanted and isinstance(source, LiveSource):
            wanted = query.most_traded(conn, source.market, most_traded)
        held = query.newest_final(conn, source.market, INTRADAY, source.name)
    bars = source.intraday(wanted, held)
    return _collect(engine, _Load(source, run_id, clock), "collect_intraday", bars, _store_intraday)


@dataclass(frozen=True, slots=True)
class _Load:
    """One collection: from where, of which run, and what it has told so far."""

    source: Source
    run_id: UUID
    clock: Clock
    told: Told = field(default_factory=Told)

    def asked_at(self, batch: Batch) -> datetime:
        return batch.asked_at or self.clock()

    def today(self, batch: Batch) -> date:
        """Return the date in the market's zone at which the source was asked."""
        return self.asked_at(batch).astimezone(MARKETS[self.source.market].zone).date()


_Outcome = tuple[dict[str, int], dict[str, str]]
"""Rows of a batch by what became of them, and why instruments in it were refused."""


def _collect(
    engine: Engine,
    load: _Load,
    job: str,
    batches: Iterable[Batch],
    store_batch: Callable[[Connection, Batch, _Load], _Outcome],
) -> Report:
    report = Report(job)
    market = load.source.market
    for batch in batches:
        try:
            with engine.begin() as conn:
                ledger.fence(conn, load.run_id)
                rows, refused = store_batch(conn, batch, load)
                refused |= batch.errors
                if not rows["read"] and batch.errors:  # nothing of it could be had: it is not done
                    rows = {}
                for item in {batch.name, *refused} if rows else refused:
                    counted = rows if item == batch.name else {}  # a batch may be an instrument
                    ledger.record_item(
                        conn, load.run_id, item, rows=counted, clock=load.clock, market=market, error=refused.get(item)
                    )
        except Fenced:
            raise
        except (ChartInsightError, *REFUSALS) as error:
            said = reason(error) if isinstance(error, ChartInsightError) else refusal(error)
            report.errors[batch.name] = said
            with engine.begin() as conn:
                ledger.fence(conn, load.run_id)
                ledger.record_item(conn, load.run_id, batch.name, rows={}, clock=load.clock, market=market, error=said)
            _log.warning("%s: %s: %s", job, batch.name, said)
            continue
        if rows:
            report.items[batch.name] = rows
        report.errors.update(refused)
        if refused:
            item, why = next(iter(refused.items()))
            _log.warning("%s: %s: %d refused; first %s: %s", job, batch.name, len(refused), item, why)
    return report


def _live(source: Source) -> LiveSource:
    if not isinstance(source, LiveSource):
        raise ConfigError(f"source {source.name!r}: it knows no running day. Choose kiwoom or simulated.")
    return source


def _first_unfinished(now: datetime) -> datetime:
    """Return the start of the bar that is forming at `now`."""
    return now - (now - datetime.min.replace(tzinfo=now.tzinfo)) % INTRADAY_LENGTH


def _store_days(conn: Connection, batch: Batch, load: _Load) -> _Outcome:
    source, today = load.source, load.today(batch)
    unfinished = source.provisional_from(today)
    bars = normalise.daily(batch.records, market=source.market, today=today, provisional_from=unfinished)
    return _store_bars(conn, batch, bars, DAILY, load)


def _store_intraday(conn: Connection, batch: Batch, load: _Load) -> _Outcome:
    unfinished = _first_unfinished(load.asked_at(batch) - SKEW)
    market, now = load.source.market, load.clock() + SKEW
    bars = normalise.intraday(batch.records, market=market, now=now, provisional_from=unfinished)
    return _store_bars(conn, batch, bars, INTRADAY, load)


def _store_bars(conn: Connection, batch: Batch, bars: normalise.Bars, timeframe: str, load: _Load) -> _Outcome:
    """Store one batch; return the count of its rows by what became of them, and why instruments were refused."""
    source, run_id, now = load.source, load.run_id, load.clock()
    ids = instrument_ids(conn, source.market)
    refused = _unknown(bars, ids)
    factors, unusable, learnt = _factors(batch, chains.told_factors(conn, ids, source=source.name))
    refused |= unusable
    candles = bars.candles[~bars.candles["code"].isin(refused)].reset_index(drop=True)
    factors = factors[~factors["code"].isin(refused)]
    raw_source = source.name if source.raw else None
    staged = stage.stage_candles(conn, candles, ids, timeframe, raw_source=raw_source)
    stage.keep_official_closes(staged)
    seams, elsewhere, judged = 0, 0, set[str]()
    if timeframe == DAILY:
        joined = join_staged(
            conn, staged, candles, factors, market=source.market, source=source.name, raw=source.raw, told=load.told, now=now,
            run_id=run_id,
        )  # fmt: skip
        refused |= joined.refused
        factors, judged, elsewhere, seams = joined.factors, joined.judged, joined.unstaged, int(joined.changed)
    candles = candles[~candles["code"].isin(refused)]
    gaps = bars.gaps[~bars.gaps["code"].isin(refused)]
    changes = stage.upsert_staged(conn, staged, source=source.name, run_id=run_id, now=now)
    stage.close_gaps(conn, staged)
    store.upsert_gaps(conn, gaps, ids, timeframe, source=source.name, run_id=run_id)
    touched = {int(ids[code]) for code in {*candles["code"].unique(), *gaps["code"].unique()}}
    moved = changes.changed + store.drop_unfinished(conn, timeframe, sorted(touched))
    asked = _asked(batch, bars, ids, refused)
    lives = (source.raw or batch.asked_at is not None) and not batch.stays
    if lives and timeframe == DAILY:
        today = load.today(batch)
        midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
        moved += stage.drop_untold(conn, staged, gaps, ids, asked, midnight, source=source.name)
    # A live source's batches and rows are others each day: the row itself says which it is, so that it is kept once.
    item, quarantine = ("", bars.quarantine.assign(row=0)) if lives else (batch.name, bars.quarantine)
    store.add_quarantine(
        conn, quarantine, timeframe, market=source.market, source=source.name, item=item, run_id=run_id
    )
    if learnt is not None:
        spans = learnt[~learnt["code"].isin({*refused, *judged})]
        seams += chains.forget_factors(conn, factors, spans, ids, source=source.name)
        told = chains.upsert_factors(conn, factors, ids, source=source.name, detected_at=now, run_id=run_id)
        seams += told.changed
    if moved or seams:
        store.move_watermark(conn, source.market, COLLECTED if seams else [timeframe])
    store.keep_cursors(conn, asked, load.asked_at(batch), timeframe, source=source.name, run_id=run_id)
    rejected = bars.quarantine["action"] == "rejected"
    if batch.stays and bars.rows and rejected.sum() == bars.rows:
        refused |= {batch.name: _junk(bars)}
    rows = {
        "read": bars.rows,
        **asdict(changes),
        "refused": len(bars.candles) - len(candles) + len(bars.gaps) - len(gaps),
        "on another basis": elsewhere,
        "duplicates": bars.duplicates,
        "rejected": int(rejected.sum()),
        **{str(kind): int(count) for kind, count in gaps["kind"].value_counts().items()},
        "of which provisional": int((candles["flags"] & Flag.PROVISIONAL.value != 0).sum()),
        "of which widened": int((candles["flags"] & Flag.WIDENED.value != 0).sum()),
    }
    return rows, refused


def _junk(bars: normalise.Bars) -> str:
    """Say why nothing of a file is a bar."""
    counted = ", ".join(f"{rule} {count}" for rule, count in bars.quarantine["rule"].value_counts().items())
    return f"none of its {bars.rows} rows is a bar ({counted}). They lie in api.quarantine; check what the file is."


def _asked(batch: Batch, bars: normalise.Bars, ids: pd.Series, refused: Mapping[str, str]) -> dict[int, date]:
    """Return {instrument id: from which date on the source was asked about it}, those left out of which nothing came of it."""
    first = pd.concat([bars.candles[["code", "ts"]], bars.gaps[["code", "ts"]]]).groupby("code")["ts"].min()
    asked = {str(code): ts.date() for code, ts in first.items()} | dict(batch.asked)
    return {
        int(ids[code]): day
        for code, day in asked.items()
        if code in ids.index and code not in {*refused, *batch.errors}
    }


def _unknown(bars: normalise.Bars, ids: pd.Series) -> dict[str, str]:
    """Return the codes of a batch that are no instruments, with the reason why nothing of them can be stored."""
    codes = {*bars.candles["code"].unique(), *bars.gaps["code"].unique()} - set(ids.index)
    return {
        str(code): "it is no instrument yet. Sync instruments first: `chartinsight run sync_instruments`."
        for code in codes
    }


def _factors(
    batch: Batch, held: Mapping[str, Mapping[date, float]]
) -> tuple[pd.DataFrame, dict[str, str], pd.DataFrame | None]:
    """Return the factors of a batch's instruments: those it names itself, else learnt from raw and adjusted prices, which are
    its `pairs` or a column `adj_close`; those `held` are kept where they fit.

    Returns: the factors; the instruments whose two series make no sense together, with the reason; and the days (code,
    first, last) that the factors were learnt from, None where there is nothing to learn from.
    """
    if batch.factors is not None:
        return batch.factors, {}, _spans(batch.records)
    given = batch.pairs if batch.pairs is not None else batch.records
    if batch.pairs is None and "adj_close" not in given:
        return pd.DataFrame(columns=FACTOR), {}, None
    found: list[pd.DataFrame] = []
    unusable: dict[str, str] = {}
    adjusted = given if batch.pairs is None else given[given["code"].isin(given.loc[differing(given), "code"].unique())]
    for code, own in adjusted.groupby("code", sort=True, observed=True):
        try:
            learnt = learn_factors(own) if batch.pairs is None else learn_chain(own, held.get(str(code), {}))
            found.append(learnt)
        except SchemaError as error:
            unusable[str(code)] = str(error)
    found = [frame for frame in found if not frame.empty]
    factors = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=FACTOR)
    spans = _spans(given)
    return factors, unusable, spans[~spans["code"].isin(unusable)]


def _spans(given: pd.DataFrame) -> pd.DataFrame:
    """Return code, first, last: the dates that each instrument's rows reach from and to."""
    days = pd.DataFrame({"code": given["code"].astype("str"), "day": normalise.read_days(given["date"])}).dropna()
    spans = days.groupby("code")["day"].agg(first="min", last="max").reset_index()
    return spans.assign(first=spans["first"].dt.date, last=spans["last"].dt.date)
