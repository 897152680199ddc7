"""A source made of rows, for tests: what it says can be changed between two collections."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime

import pandas as pd

from chartinsight_lib.clients.base import NOTHING_HELD, Batch
from chartinsight_lib.domain import INSTRUMENT


class Rows:
    """A source of the market KRX that grows: `rows` is all that it has to say, at `asked_at`; `unfinished` what it said of each
    day in the afternoon of that day."""

    market, raw, lists_whole_market = "KRX", True, False

    def __init__(
        self,
        rows: pd.DataFrame,
        asked_at: datetime,
        unfinished: pd.DataFrame | None = None,
        *,
        name: str = "handmade",
        listed: Mapping[str, tuple[date | None, date | None]] | None = None,
    ) -> None:
        self.rows, self.asked_at, self.unfinished, self.name, self.listed = (
            rows,
            asked_at,
            unfinished,
            name,
            listed or {},
        )
        self.errors: dict[str, str] = {}
        self.held: list[Mapping[str, date]] = []

    def instruments(self) -> pd.DataFrame:
        codes = sorted({*self.rows["code"], *self.listed})
        frame = pd.DataFrame({"code": codes, "name": codes, "market": self.market, "kind": "stock", "currency": "KRW"})
        dates = [self.listed.get(code, (None, None)) for code in codes]
        frame = frame.assign(sector=None, listed_on=[on for on, _ in dates], delisted_on=[off for _, off in dates])
        return frame[INSTRUMENT]

    def provisional_from(self, today: date) -> date | None:
        return today

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        self.held.append(dict(held))
        asked = {
            code: self.rows["date"].min()
            for code in sorted({*self.rows["code"], *self.listed})
            if code not in self.errors
        }
        yield Batch("finished", self.rows, asked_at=self.asked_at, asked=asked, errors=self.errors)
        if self.unfinished is not None:
            for day, rows in self.unfinished.groupby("date"):
                asked_at = datetime(day.year, day.month, day.day, 5, tzinfo=UTC)
                yield Batch(f"unfinished {day}", rows, asked_at=asked_at)
