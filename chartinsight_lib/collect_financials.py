"""Open DART -> filings as they came -> figures: only what is new is asked, and nothing twice.

The list of filings says what is new; a filing's statements are fetched once and kept for ever. The register gives the newest
correction of a report alone: what a correction replaced before it was fetched can be had no more, and its figures count as
known from the day the correction was received. Each company is a transaction of its own, so that one that fails costs no
other; a day's allowance that is used up ends the run, and the next one goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Engine

from chartinsight_lib import ledger
from chartinsight_lib import normalise_dart as normalise
from chartinsight_lib.analysis.financials import figures
from chartinsight_lib.clients.dart import CONSOLIDATED, RATE, SEPARATE, USED_UP, DartClient, fingerprint
from chartinsight_lib.clock import Clock
from chartinsight_lib.collect import Report
from chartinsight_lib.db import financials as db
from chartinsight_lib.db.pace import SharedAllowance, SharedSlots
from chartinsight_lib.db.rows import REFUSALS, refusal
from chartinsight_lib.domain import KST
from chartinsight_lib.errors import (
    AuthFailed,
    ChartInsightError,
    ConfigError,
    Fenced,
    NotFound,
    Passing,
    RateLimited,
    Unavailable,
    reason,
)
from chartinsight_lib.normalise_dart import Listed, asked_as, fiscal_month
from chartinsight_lib.pace import LocalAllowance, LocalSlots, Pacer

if TYPE_CHECKING:
    from chartinsight_lib.settings import Settings

JOB, MARKET = "collect_financials", "KRX"
OVERLAP = timedelta(days=7)
"""Days before today are listed again: what was received late in a day, or entered later, is not lost."""
GRACE = timedelta(days=30)
"""The register has a report's statements some time after the report; after so long it will have none."""
IN_A_ROW = 5
"""So many companies that fail one after the other because the register does not answer end the run."""


def open_client(settings: Settings, engine: Engine | None = None) -> DartClient:
    """Return a client with the key of the settings; pace and allowance are shared through `engine`, which acts as the loader.

    Raises:
        ConfigError: there is no key, or it is none.
    """
    if settings.dart_key is None:
        raise ConfigError(
            "dart: there is no key. Apply for one at opendart.fss.or.kr (free), and write CHARTINSIGHT_DART_KEY into .env."
        )
    key = settings.dart_key.get_secret_value().strip()
    owner = f"dart:{fingerprint(key, settings.dart_url)}"
    return DartClient(
        key,
        base_url=settings.dart_url,
        pacer=Pacer(SharedSlots(engine, owner) if engine else LocalSlots(), RATE),
        allowance=SharedAllowance(engine, owner) if engine else LocalAllowance(),
        daily=settings.dart_daily,
        clock=settings.clock,
    )


def collect_financials(
    engine: Engine, client: DartClient, *, run_id: UUID, clock: Clock, years: int = 4, codes: Sequence[str] = ()
) -> Report:
    """List filings that are new, fetch their statements, work out the figures.

    Args:
        years: filings received since the first of January so many years ago.
        codes: of these instruments alone; empty: of all stocks known here.
    Returns:
        one item per company, and `list` for the list itself; `left`: companies whose turn did not come today.
    Raises:
        AuthFailed: the key is not taken.
        NotFound: one of `codes` is no listed company.
    """
    run = _Run(engine, client, run_id, clock, Report(JOB))
    today = clock().astimezone(KST).date()
    since = date(today.year - years, 1, 1)
    try:
        run.list_new(since, today, codes)
        run.fetch_all(since, today, codes)
    except RateLimited as error:
        if error.code != USED_UP or "list" not in run.report.items:
            raise
        run.record("allowance", {"left": len(run.left)}, error=None)
    return run.report


@dataclass(slots=True)
class _Asked:
    """What was learnt about a company's filings, to be stored in one transaction."""

    found: dict[str, db.Fetched] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    asked: int = 0


@dataclass(slots=True)
class _Run:
    """One collection under way; `left`: companies whose turn is still to come."""

    engine: Engine
    client: DartClient
    run_id: UUID
    clock: Clock
    report: Report
    left: list[str] = field(default_factory=list)

    # The list.

    def list_new(self, since: date, today: date, codes: Sequence[str]) -> None:
        """Store the filings that are not known yet; each span of days is a transaction. One with rows that make no sense is not
        taken for read, and is asked again."""
        read = added = 0
        wrong: list[str] = []
        for first, last, corp_code in self._spans(since, today, codes):
            found, refused = normalise.listed(self.client.filings(first, last, corp_code=corp_code))
            with self.engine.begin() as conn:
                ledger.fence(conn, self.run_id)
                added += db.add_filings(conn, map(asdict, found), now=self.clock(), run_id=self.run_id)
                if not corp_code and not refused:
                    db.record_list(conn, first, last, filings=len(found), now=self.clock(), run_id=self.run_id)
            read += len(found)
            wrong += refused
        with self.engine.begin() as conn:
            ledger.fence(conn, self.run_id)
            db.link_instruments(conn, MARKET)
        error = f"{len(wrong)} rows are refused. First: {wrong[0]}" if wrong else None
        self.record("list", {"read": read, "inserted": added, "unchanged": read - added}, error=error)

    def _spans(self, since: date, today: date, codes: Sequence[str]) -> Iterator[tuple[date, date, str]]:
        if codes:
            for corp_code in self._corp_codes(codes):
                yield since, today, corp_code
            return
        with self.engine.connect() as conn:
            known = db.listed_days(conn, KST.key)
        for first, last in months(since, today):
            until = _listed_until(known, first, last)
            if last >= today - OVERLAP:
                yield max(first, until - OVERLAP), last, ""
            elif until < last:
                yield first, last, ""

    def _corp_codes(self, codes: Sequence[str]) -> list[str]:
        with self.engine.connect() as conn:
            known = db.corp_codes(conn, codes)
        if not set(codes) <= known.keys():
            known |= {
                one["stock_code"]: one["corp_code"] for one in self.client.corporations() if one["stock_code"] in codes
            }
        if unknown := sorted(set(codes) - known.keys()):
            raise NotFound(
                f"{JOB}: {', '.join(unknown)}: no company is listed under this code. Preferred shares, ETFs and the like file no "
                "reports of their own."
            )
        return [known[code] for code in dict.fromkeys(codes)]

    # The statements.

    def fetch_all(self, since: date, today: date, codes: Sequence[str]) -> None:
        """Fetch what is listed and can be had, company by company, those that filed last first."""
        with self.engine.connect() as conn:
            self.left = db.companies_to_ask(conn, MARKET, codes, since)
        failed_in_a_row = 0
        while self.left:
            corp_code = self.left[0]
            try:
                self._company(corp_code, since, today)
                failed_in_a_row = 0
            except (ChartInsightError, *REFUSALS) as error:
                if isinstance(error, AuthFailed | Fenced) or _used_up(error):
                    raise
                failed_in_a_row = failed_in_a_row + 1 if isinstance(error, Unavailable) else 0
                if failed_in_a_row == IN_A_ROW:
                    self.report.errors["dart"] = Passing(
                        f"stopped, because {IN_A_ROW} companies in a row had no answer; {len(self.left) - 1} are left. Try later."
                    )
                    return
            self.left.pop(0)

    def _company(self, corp_code: str, since: date, today: date) -> None:
        with self.engine.connect() as conn:
            filings = db.filings_of(conn, corp_code)
        item = filings[-1].stock_code
        asked = _Asked()
        stopped: Exception | None = None
        try:
            self._ask(filings, asked, since, today)
        except ChartInsightError as error:
            stopped = error  # what came before it is kept
        try:
            rows, wrong = self._store(corp_code, filings, asked)
        except REFUSALS as error:
            self.record(item, {}, error=refusal(error))
            raise
        # Where the allowance ended, the rest of it comes tomorrow.
        self.record(item, rows, error=reason(stopped) if stopped and not _used_up(stopped) else wrong)
        if stopped:
            raise stopped

    def _ask(self, filings: Sequence[db.Filing], asked: _Asked, since: date, today: date) -> None:
        listed = [_listed(one) for one in filings]
        wanted = {one.period_end for one in filings if one.state == "listed" and one.received_on >= since}
        for period_end in sorted(wanted, reverse=True):
            versions = [one for one in filings if one.period_end == period_end]
            self._ask_period(versions, listed, asked, today)

    def _ask_period(self, versions: Sequence[db.Filing], listed: Sequence[Listed], asked: _Asked, today: date) -> None:
        """Ask for the statements of a period, of which there is one filing or a filing and its corrections."""
        newest = versions[-1]
        month = fiscal_month(listed, newest.period_end) or self._fiscal_month(newest.corp_code)
        held = {one.rcept_no for one in versions if one.state == db.FETCHED}
        found = ""
        for bsns_year, reprt_code in asked_as(newest.form, newest.period_end, month):
            for fs_div in (CONSOLIDATED, SEPARATE):
                rows = self.client.statements(newest.corp_code, bsns_year, reprt_code, fs_div)
                asked.asked += 1
                if rows:
                    break
            rcept_no = str(rows[0].get("rcept_no", "")) if rows else ""
            # Another year's report answers to a year that is named otherwise than thought: its number is of another period.
            if rcept_no in {one.rcept_no for one in versions}:
                found = rcept_no
                if found not in held:
                    shares = self.client.share_counts(newest.corp_code, bsns_year, reprt_code)
                    asked.found[found] = db.Fetched(bsns_year, reprt_code, fs_div, rows, shares)
                break
        for one in versions:
            if one.state != "listed" or one.rcept_no == found:
                continue
            if found and one.rcept_no < found:
                asked.superseded.append(one.rcept_no)
            elif today - one.received_on > GRACE:
                asked.without.append(one.rcept_no)

    def _fiscal_month(self, corp_code: str) -> int:
        written = str(self.client.company(corp_code).get("acc_mt", "")).strip()
        return int(written) if written.isascii() and written.isdigit() and 1 <= int(written) <= 12 else 12

    def _store(self, corp_code: str, filings: Sequence[db.Filing], asked: _Asked) -> tuple[dict[str, int], str | None]:
        """Store what was learnt about a company, and its figures anew; return counts, and why there are no figures."""
        now, wrong = self.clock(), None
        with self.engine.begin() as conn:
            ledger.fence(conn, self.run_id)
            for rcept_no, found in asked.found.items():
                db.keep_statements(conn, rcept_no, found, now=now, run_id=self.run_id)
            db.give_up(conn, asked.superseded, db.SUPERSEDED, now=now, run_id=self.run_id)
            db.give_up(conn, asked.without, db.WITHOUT, now=now, run_id=self.run_id)
            changes = db.Changes()
            instrument = next((one.instrument_id for one in reversed(filings) if one.instrument_id is not None), None)
            if asked.found and instrument is not None:
                try:
                    told = [
                        normalise.statement(
                            rows, shares, filing=_listed(one), reprt_code=one.reprt_code or "", fs_div=one.fs_div or ""
                        )
                        for one, rows, shares in db.payloads(conn, corp_code)
                    ]
                    changes = db.replace_figures(conn, instrument, list(map(asdict, figures(told))), run_id=self.run_id)
                except ChartInsightError as error:
                    wrong = str(error)  # the rows are kept as they came
        return {"read": asked.asked, "fetched": len(asked.found), **changes._asdict()}, wrong

    def record(self, item: str, rows: Mapping[str, int], *, error: str | None) -> None:
        """Write an item into the report and the ledger."""
        with self.engine.begin() as conn:
            ledger.fence(conn, self.run_id)
            ledger.record_item(conn, self.run_id, item, rows=rows, clock=self.clock, market=MARKET, error=error)
        if rows:
            self.report.items[item] = rows
        if error:
            self.report.errors[item] = error


def _used_up(error: Exception) -> bool:
    return isinstance(error, RateLimited) and error.code == USED_UP


def months(since: date, until: date) -> Iterator[tuple[date, date]]:
    """Yield the calendar months from `since` to `until`, cut off at both."""
    first = since
    while first <= until:
        following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
        yield first, min(following - timedelta(days=1), until)
        first = following


def _listed_until(known: Sequence[tuple[date, date]], first: date, last: date) -> date:
    """Return the last day of an unbroken list from `first` on, `last` at most; the day before `first` where there is none."""
    until = first - timedelta(days=1)
    for begin, end in sorted(known):
        if begin <= until + timedelta(days=1):
            until = max(until, min(end, last))
    return until


def _listed(one: db.Filing) -> Listed:
    return Listed(
        one.rcept_no, one.corp_code, one.stock_code, one.report_name, one.form, one.period_end, one.received_on
    )
