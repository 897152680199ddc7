"""Real data for the first minute: five US stocks from the package bokeh-sampledata (extra `sample`).

Raw daily bars in dollars and a close adjusted for splits and dividends, up to 2013-03-01, all final. The data are from
Quandl WIKI and in the public domain. GOOG is Google's only share before 2014 (today's class A, GOOGL).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chartinsight_lib.clients.base import NOTHING_HELD, Batch
from chartinsight_lib.domain import INSTRUMENT, MARKETS
from chartinsight_lib.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    import pandas as pd

NAMES = {
    "AAPL": "Apple Inc.",
    "FB": "Facebook Inc.",
    "GOOG": "Google Inc.",
    "IBM": "International Business Machines",
    "MSFT": "Microsoft",
}
COLUMNS = ("date", "open", "high", "low", "close", "volume", "adj_close")


class SampleSource:
    """Five US stocks, 2000 to 2013. Opening it is cheap; the data are read when they are asked for."""

    name = "sample"
    market = "US"
    raw = False  # a correction of a package's data is not expected
    lists_whole_market = False

    def __init__(self) -> None:
        from importlib.util import find_spec

        if find_spec("bokeh_sampledata") is None:
            raise ConfigError(
                "source 'sample': the package bokeh-sampledata is not installed. "
                "Install the extra: pip install 'chartinsight-studio[sample]'."
            )

    def instruments(self) -> pd.DataFrame:
        """Return the five stocks: the columns `domain.INSTRUMENT`."""
        import pandas as pd

        frame = pd.DataFrame({"code": list(NAMES), "name": list(NAMES.values())}).assign(
            market=self.market, kind="stock", sector=None, listed_on=None, delisted_on=None
        )
        return frame.assign(currency=MARKETS[self.market].currency)[INSTRUMENT]

    def provisional_from(self, today: date) -> date | None:
        """Return None: every bar is final."""
        return None

    def daily(self, held: Mapping[str, date] = NOTHING_HELD) -> Iterator[Batch]:
        """Yield one batch per stock, named by its code; prices in dollars, volume in shares, dates as ISO text.

        Raises:
            SchemaError: the installed version of the package holds something else than expected.
        """
        import pandas as pd

        try:
            from bokeh_sampledata import stocks

            series = {code: pd.DataFrame({name: getattr(stocks, code)[name] for name in COLUMNS}) for code in NAMES}
        except (ImportError, AttributeError, KeyError, ValueError, OSError) as error:
            raise SchemaError(
                f"source 'sample': bokeh-sampledata does not hold the stocks {', '.join(NAMES)} as expected ({error}). "
                "Install a version that does: pip install 'chartinsight-studio[sample]'."
            ) from error
        for code, frame in series.items():
            yield Batch(code, frame.assign(code=code, row=range(1, len(frame) + 1)))
