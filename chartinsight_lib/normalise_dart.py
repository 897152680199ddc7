"""Open DART's rows -> filings and statements. Pure: no network, no database, no clock.

A statement holds what a report says of its own period and nothing of the periods it compares itself with. Amounts are in the
report's currency (won, as a rule), whole; what a report does not say is None, and `notes` says why.

Rules, each because the vendor's rows would otherwise mislead:
- Amounts of income in a quarterly or half-yearly report are for three months (`thstrm_amount`); the sum since the fiscal year
  began stands beside them (`thstrm_add_amount`), and may be blank. In the first quarter both are the same; in an annual report
  `thstrm_amount` is the year's.
- An account may stand in the income statement (IS) and in that of comprehensive income (CIS): IS is asked first, CIS only for
  what IS does not have. Changes in equity (SCE) and cash flows (CF) repeat the names of accounts and are never asked.
- Accounts are found by their standard id, whatever the taxonomy's year (`ifrs_`, `ifrs-full_`, `dart_`); by name only where
  the company used no standard id, and only by names that can mean nothing else.
- Two rows of one statement that fit an account and differ are no answer: the account is unknown.
- Net income belongs to the owners of the parent; the total stands for it only where nobody else has a share.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from chartinsight_lib.errors import SchemaError

Record = Mapping[str, Any]

FIRST_QUARTER, HALF_YEAR, NINE_MONTHS, ANNUAL = "11013", "11012", "11014", "11011"
REPORTS = {3: FIRST_QUARTER, 6: HALF_YEAR, 9: NINE_MONTHS, 0: ANNUAL}
"""Months since the end of the last fiscal year -> reprt_code; 0: the year itself."""
QUARTERS = {FIRST_QUARTER: 1, HALF_YEAR: 2, NINE_MONTHS: 3, ANNUAL: 4}
FORMS = {"사업보고서": "annual", "반기보고서": "half", "분기보고서": "quarter"}
INCOME, BALANCE = ("IS", "CIS"), ("BS",)

_NAME = re.compile(r"(?:\[[^\]]*\]\s*)*(사업보고서|반기보고서|분기보고서)\s*\((\d{4})\.(\d{2})\)")
_AMOUNT = re.compile(r"-?\d+(?:\.\d+)?")
_NUMBERING = re.compile(r"^(?:[IVXⅠ-Ⅻivx]+|\d+|[가-하])\s*[.)]\s*")


@dataclass(frozen=True, slots=True)
class Listed:
    """A periodic report in the register's list; `form`: annual, half, quarter; `period_end`: the last day of what it reports."""

    rcept_no: str
    corp_code: str
    stock_code: str
    report_name: str
    form: str
    period_end: date
    received_on: date


class Amount(NamedTuple):
    """Income of the report's last three months, and since its fiscal year began; None: the report does not say."""

    quarter: float | None
    to_date: float | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What one report says of its own period.

    `quarter`: 1 to 4, the fourth being the year; `fs_div`: CFS consolidated, OFS separate; `shares`: outstanding at the end of
    the period, all classes, without treasury shares; `notes`: why something is None.
    """

    rcept_no: str
    known_from: date
    period_end: date
    quarter: int
    fs_div: str
    currency: str
    revenue: Amount
    operating_income: Amount
    owner_income: Amount
    owner_equity: float | None
    shares: float | None
    notes: tuple[str, ...] = ()


def listed(rows: Iterable[Record]) -> tuple[list[Listed], list[str]]:
    """Turn rows of list.json into filings; other reports than periodic ones, and companies without a stock code, are left out.

    Returns:
        the filings, and why rows were refused of which a field is not what the guide says: one that is odd hides no other.
    Raises:
        SchemaError: a row lacks a field, or every periodic report is refused: the API has changed.
    """
    found, refused = [], []
    for row in rows:
        if lacking := [name for name in ("rcept_no", "corp_code", "report_nm", "rcept_dt") if not row.get(name)]:
            raise SchemaError(f"dart list.json: a row lacks {', '.join(lacking)}. The API may have changed.")
        if (name := _NAME.match(str(row["report_nm"]).strip())) and str(row.get("stock_code") or "").strip():
            try:
                found.append(_filing(row, name))
            except SchemaError as error:
                refused.append(str(error))
    if refused and not found:
        raise SchemaError(f"{refused[0]} So it is with all {len(refused)} reports. The API may have changed.")
    return found, refused


def fiscal_month(filings: Iterable[Listed], of: date) -> int:
    """Return the month in which a company's fiscal years end, by its annual and half-yearly reports: the one nearest to a
    period; 0 where there is none."""
    told = [one for one in filings if one.form != "quarter"]
    if not told:
        return 0
    nearest = min(told, key=lambda one: (abs((one.period_end - of).days), one.period_end, one.rcept_no))
    return nearest.period_end.month if nearest.form == "annual" else (nearest.period_end.month + 5) % 12 + 1


def asked_as(form: str, period_end: date, fiscal_end: int) -> list[tuple[str, str]]:
    """Return the (bsns_year, reprt_code) under which the register may hold a report; empty where its form and its period do not
    go together, as in a fiscal year that was cut short.

    A fiscal year that does not end in December is named after the year of its end or of its beginning: both are returned.
    """
    months = (period_end.month - fiscal_end) % 12
    if {"annual": {0}, "half": {6}, "quarter": {3, 9}}[form].isdisjoint({months}):
        return []
    ends_in = period_end.year + (months > 0 and period_end.month + 12 - months > 12)
    return [(str(year), REPORTS[months]) for year in ((ends_in,) if fiscal_end == 12 else (ends_in, ends_in - 1))]


def statement(
    rows: Sequence[Record], shares: Sequence[Record], *, filing: Listed, reprt_code: str, fs_div: str
) -> Statement:
    """Read a report's figures.

    Args:
        rows: of fnlttSinglAcntAll, for `reprt_code` and `fs_div`.
        shares: of stockTotqySttus.
    Raises:
        SchemaError: an amount is no number.
    """
    reader = _Reader(rows, f"dart {filing.stock_code} {filing.rcept_no}", QUARTERS[reprt_code])
    shared = fs_div == "CFS" and reader.others_have_a_share()
    currencies = sorted({str(row.get("currency") or "").strip() for row in rows} - {""})
    if len(currencies) > 1:
        reader.notes.append(f"amounts are in {' and '.join(currencies)}")
    return Statement(
        filing.rcept_no,
        filing.received_on,
        filing.period_end,
        QUARTERS[reprt_code],
        fs_div,
        "/".join(currencies),
        reader.amount("revenue"),
        reader.amount("operating income"),
        reader.amount("net income of the owners", *(() if shared else ("net income",))),
        reader.balance("equity of the owners", *(() if shared else ("equity",))),
        _shares(shares, filing, reader.notes),
        tuple(reader.notes),
    )


class _Account(NamedTuple):
    ids: tuple[str, ...]  # without the taxonomy's prefix; the first that is found stands
    names: tuple[str, ...]  # without spaces
    statements: tuple[str, ...]


_TITLES = ("당기순이익", "분기순이익", "반기순이익", "당기순손익", "분기순손익", "반기순손익")
_PROFITS = tuple(f"{before}{title}{after}" for before in ("", "연결") for title in _TITLES for after in ("", "(손실)"))
_OWNERS = (
    "지배기업의소유주에게귀속되는",
    "지배기업소유주에게귀속되는",
    "지배기업소유주지분",
    "지배기업의소유주지분",
    "지배기업주주지분",
)
ACCOUNTS = {
    "revenue": _Account(("Revenue",), ("매출액", "수익(매출액)", "영업수익", "매출"), INCOME),
    "operating income": _Account(
        ("OperatingIncomeLoss", "ProfitLossFromOperatingActivities"), ("영업이익", "영업이익(손실)", "영업손익"), INCOME
    ),
    "net income of the owners": _Account(
        ("ProfitLossAttributableToOwnersOfParent",), tuple(owner + profit for owner in _OWNERS for profit in _PROFITS), INCOME
    ),
    "net income": _Account(("ProfitLoss",), _PROFITS, INCOME),
    "equity of the owners": _Account(
        ("EquityAttributableToOwnersOfParent",),
        tuple(owner + after for owner in _OWNERS[:2] for after in ("자본", "지분")) + _OWNERS[2:],
        BALANCE,
    ),
    "equity": _Account(("Equity",), ("자본총계",), BALANCE),
}  # fmt: skip
_OTHERS = {"ProfitLossAttributableToNoncontrollingInterests", "NoncontrollingInterests"}


_Row = tuple[str, str, str, Record]
"""Statement, standard id, plain name, and the row itself."""


class _Reader:
    """Finds accounts in a report's rows."""

    def __init__(self, rows: Sequence[Record], where: str, quarter: int) -> None:
        self._where, self._quarter = where, quarter
        self._rows = [
            (str(row.get("sj_div", "")), _standard_id(row), _plain(row), row)
            for row in rows
            if str(row.get("sj_div", "")) in {*INCOME, *BALANCE}
        ]
        self.notes: list[str] = []

    def amount(self, *names: str) -> Amount:
        """Return an income account of the report's own period: the first of `names` that there is."""
        found = self._find(*names)
        if found is None:
            return Amount(None, None)
        shown, to_date = self._number(found, "thstrm_amount"), self._number(found, "thstrm_add_amount")
        if self._quarter == 4:
            return Amount(None, shown)
        return Amount(shown, shown if self._quarter == 1 else to_date)

    def balance(self, *names: str) -> float | None:
        """Return an account of the balance sheet at the end of the period: the first of `names` that there is."""
        found = self._find(*names)
        return None if found is None else self._number(found, "thstrm_amount")

    def others_have_a_share(self) -> bool:
        """Whether any row speaks of non-controlling interests that are not nil."""
        return any(
            (standard in _OTHERS or (not standard and "비지배" in name)) and self._number(row, "thstrm_amount")
            for _, standard, name, row in self._rows
        )

    def _find(self, *names: str) -> Record | None:
        """Return the row of an account, or None and a note."""
        for name in names:
            if fits := self._fits(ACCOUNTS[name]):
                named = [one for one in fits if one[2] in ACCOUNTS[name].names]
                for rows in (fits, named):
                    said = {
                        (self._number(one, "thstrm_amount"), self._number(one, "thstrm_add_amount")) for *_, one in rows
                    }
                    if len(said) == 1:
                        return rows[0][3]
                self.notes.append(f"{name}: several rows of it differ")
                return None
        self.notes.append(f"{names[0]}: not told")
        return None

    def _fits(self, account: _Account) -> list[_Row]:
        """Return the rows that may be an account, all of one statement."""
        for part in account.statements:
            rows = [one for one in self._rows if one[0] == part and self._told(one[3])]
            for wanted in account.ids:
                if fits := [one for one in rows if one[1] == wanted]:
                    return fits
            if fits := [one for one in rows if not one[1] and one[2] in account.names]:
                return fits
        return []

    def _told(self, row: Record) -> bool:
        return self._number(row, "thstrm_amount") is not None or self._number(row, "thstrm_add_amount") is not None

    def _number(self, row: Record, field: str) -> float | None:
        return _number(row.get(field), f"{self._where}: {field} of {row.get('account_nm')}")


def _standard_id(row: Record) -> str:
    """Return an account's standard id without its taxonomy, "" where the company used none."""
    written = str(row.get("account_id") or "").strip()
    taxonomy, found, rest = written.partition("_")
    return rest if found and taxonomy in {"ifrs-full", "ifrs", "dart"} else ""


def _plain(row: Record) -> str:
    """Return an account's name without its numbering and spaces."""
    return re.sub(r"\s+", "", _NUMBERING.sub("", str(row.get("account_nm") or "").strip()))


def _number(written: Any, what: str) -> float | None:
    """Read an amount; None for a blank. Raises SchemaError for what is no number."""
    text = re.sub(r"[\s,]", "", str("" if written is None else written))
    if text in {"", "-"}:
        return None
    if len(text) > 2 and text[0] == "(" and text[-1] == ")":
        text = f"-{text[1:-1]}"
    if not _AMOUNT.fullmatch(text) or not text.isascii() or len(text) > 30:
        raise SchemaError(f"{what} is {str(written)[:40]!r}, and a number is expected.")
    return float(text)


def _shares(rows: Sequence[Record], filing: Listed, notes: list[str]) -> float | None:
    """Return the shares outstanding of all classes; of what is issued, where treasury shares are not told."""
    for row in rows:
        if re.sub(r"\s+", "", str(row.get("se") or "")) != "합계":
            continue
        counted = re.sub(r"\D", "", str(row.get("stlm_dt") or ""))
        if counted and counted[:6] != f"{filing.period_end:%Y%m}":
            notes.append(f"shares: counted on {row.get('stlm_dt')}, not at the end of the period")
            return None
        for field in ("distb_stock_co", "istc_totqy"):
            number = _number(row.get(field), f"dart {filing.stock_code} {filing.rcept_no}: {field}")
            if number:
                return number if number > 0 else None
    notes.append("shares: not told")
    return None


def _filing(row: Record, name: re.Match[str]) -> Listed:
    return Listed(
        _code(row, "rcept_no", r"\d{14}"),
        _code(row, "corp_code", r"\d{8}"),
        _code(row, "stock_code", r"[0-9A-Z]{6}"),
        str(row["report_nm"]).strip(),
        FORMS[name[1]],
        _month_end(row, int(name[2]), int(name[3])),
        _day(row),
    )


def _code(row: Record, field: str, pattern: str) -> str:
    written = row[field]
    # A number has lost its leading zeros: it is no code any more.
    if not isinstance(written, str) or not re.fullmatch(pattern, written.strip(), re.ASCII):
        raise SchemaError(f"dart list.json: {field} is {written!r}, and text like {pattern} is expected.")
    return written.strip()


def _day(row: Record) -> date:
    written = str(row["rcept_dt"]).strip()
    try:
        return date(int(written[:4]), int(written[4:6]), int(written[6:8] if len(written) == 8 else ""))
    except ValueError as error:
        raise SchemaError(f"dart list.json: rcept_dt is {written[:30]!r}, and YYYYMMDD is expected.") from error


def _month_end(row: Record, year: int, month: int) -> date:
    if not (1 <= month <= 12 and year >= 1900):
        raise SchemaError(f"dart list.json: the period in {row['report_nm']!r} is no month.")
    return date(year, month, calendar.monthrange(year, month)[1])
