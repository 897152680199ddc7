"""KRX's lists, as FinanceDataReader gives them -> instruments and delistings. Pure."""

from __future__ import annotations

import pandas as pd

from chartinsight_lib.domain import INSTRUMENT, MARKETS
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.states import section_of

LIST = ("Code", "Name", "Market", "Dept", "Stocks")
DESCRIPTIONS = ("Code", "Industry", "ListingDate")
DELISTED = ("Symbol", "Name", "Market", "SecuGroup", "ListingDate", "DelistingDate", "Reason")
"""Columns that are read of the lists KRX, KRX-DESC and KRX-DELISTING."""

BOARDS = {"KOSPI": "KOSPI", "KOSDAQ": "KOSDAQ", "KOSDAQ GLOBAL": "KOSDAQ", "KONEX": "KONEX"}
SHARES = ("주권", "외국주권", "주식예탁증권")
"""What is a share, of what was delisted; the others are rights, warrants and funds."""
NO_SECTION = "(소속부없음)"


def instruments(listed: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Turn the list of stocks, and what is told of each besides, into an instrument frame, ascending and unique in code.

    Args:
        listed: the columns LIST; `Dept` is the section of KOSDAQ and KONEX.
        described: the columns DESCRIPTIONS; may lack some, such as preferred shares.
    Returns:
        the columns `domain.INSTRUMENT`, and board, section, shares. It does not tell whether trading is halted.
    Raises:
        SchemaError: a row has no code or name, two have the same code, or a board is unknown.
    """
    if listed[["Code", "Name"]].isna().any(axis=None) or listed["Code"].duplicated().any():
        raise SchemaError(
            f"krx: of the {len(listed)} rows of KRX's list some have no code or name, or the code of another."
        )
    if unknown := sorted(set(listed["Market"].dropna()) - BOARDS.keys()):
        raise SchemaError(f"krx: KRX's list names the boards {unknown}; known are {list(BOARDS)}.")
    more = described.drop_duplicates("Code").set_index("Code")
    words = [word.replace(NO_SECTION, "").strip() if isinstance(word, str) else "" for word in listed["Dept"]]
    board = listed["Market"].map(BOARDS)
    frame = pd.DataFrame(
        {
            "code": listed["Code"],
            "name": listed["Name"],
            "sector": listed["Code"].map(more["Industry"]),
            "listed_on": _dates(listed["Code"].map(more["ListingDate"])),
            "board": board,
            "section": [section_of(word) for word in words],
        }
    ).astype(object)
    frame = frame.where(frame.notna(), None).assign(
        shares=pd.to_numeric(listed["Stocks"], errors="coerce").astype("Int64"),
        market="KRX",
        kind="stock",
        delisted_on=None,
        currency=MARKETS["KRX"].currency,
    )
    return frame.sort_values("code", ignore_index=True)[[*INSTRUMENT, "board", "section", "shares"]]


def delistings(told: pd.DataFrame) -> pd.DataFrame:
    """Return the shares that were delisted, ascending in (delisted_on, code): code, name, board, listed_on, delisted_on
    (`datetime.date`), reason; missing values are None. A code may come back, and then occurs twice.

    Args:
        told: the columns DELISTED.
    """
    told = told[told["SecuGroup"].isin(SHARES)].dropna(subset=["Symbol"])
    frame = pd.DataFrame(
        {
            "code": told["Symbol"],
            "name": told["Name"],
            "board": told["Market"].map(BOARDS),
            "listed_on": _dates(told["ListingDate"]),
            "delisted_on": _dates(told["DelistingDate"]),
            "reason": told["Reason"],
        }
    ).astype(object)
    frame = frame.where(frame.notna(), None).dropna(subset=["delisted_on"])
    frame = frame.sort_values(["delisted_on", "code"], kind="stable")
    return frame.drop_duplicates(["code", "delisted_on"], keep="last", ignore_index=True)


def _dates(column: pd.Series) -> pd.Series:
    """Return days as `datetime.date`, None where there is none."""
    days = pd.to_datetime(column, errors="coerce")
    return days.dt.date.astype(object).where(days.notna(), None)
