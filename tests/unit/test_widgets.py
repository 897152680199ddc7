"""The parts of the Trading Radar without a browser: what is chosen is charted, and nonsense from a page is refused."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from ipywidgets.widgets import widget
from traitlets import TraitError

from chartinsight_lib.analysis.pivots import Pivots
from chartinsight_lib.db.query import Instrument
from chartinsight_lib.errors import NotFound
from chartinsight_lib.radar import ChartData, Status
from chartinsight_lib.widgets import ChartPanel, TradingRadar
from chartinsight_lib.widgets.scanner import Scanner, table_values
from chartinsight_lib.widgets.status_strip import status_html

NAMES = {7: ("005930", "삼성전자"), 8: ("000660", "SK하이닉스"), 9: ("035720", "<img src=x>")}


def bars(instrument_id: int, timeframe: str, n: int = 50) -> ChartData:
    days = pd.bdate_range("2024-01-01", periods=n, tz="UTC")
    level = 100.0 * instrument_id + np.arange(n)
    candles = pd.DataFrame({"open": level, "high": level + 2, "low": level - 2, "close": level + 1}, index=days)
    candles = candles.assign(volume=1.0, value=np.nan, flags=0)
    pivots = Pivots(np.array([3, n - 9]), np.array([5, n - 7]), np.array([1.0, 2.0]), np.array([1, -1]))
    instrument = Instrument(instrument_id, "KRX", *NAMES[instrument_id], "KRW")
    trend = np.zeros(n, dtype=np.int8)
    return ChartData(instrument, timeframe, candles, pivots, trend, date(2024, 3, 8), "KRX", "as the source gave them")


class StandIn:
    """A radar of three stocks, the second of which cannot be charted."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []
        self.day = date(2024, 3, 8)
        self.broken = False
        self.rows = pd.DataFrame(
            {
                "market": "KRX",
                "code": [code for code, _ in NAMES.values()],
                "name": [name for _, name in NAMES.values()],
                "day": self.day,
                "close": [71400.0, 120000.0, 48000.0],
                "currency": "KRW",
                "change_pct": [-1.5, np.nan, 2.0],
                "trend": ["up", "down", "sideways"],
                "trend_days": [12, 3, 40],
                "trend_long": ["up", "up", "down"],
                "high_52w_pct": [-3.0, -10.0, -20.0],
                "bars_52w": [250, 250, 60],
                "rsi14": [61.2, 40.0, np.nan],
                "volume": [100.0, 300.0, 200.0],
                "value": [7e12, 9e11, np.nan],
                "bars": [500, 500, 60],
                "provisional": [True, False, False],
            },
            index=pd.Index(list(NAMES), name="instrument_id"),
        )

    def status(self) -> Status:
        if self.broken:
            raise RuntimeError("host=db.internal password=geheim")
        return Status(as_of=self.day, market="KRX", zone="Asia/Seoul", instruments=3, scanned=3, last_bar=self.day)

    def table(self) -> pd.DataFrame:
        return self.rows

    def chart(self, instrument_id: int, timeframe: str) -> ChartData:
        self.asked.append((instrument_id, timeframe))
        if instrument_id == 8:
            raise NotFound("instrument 8: there is <none> with this id.")
        return bars(instrument_id, timeframe)


@pytest.fixture
def source() -> StandIn:
    return StandIn()


@pytest.fixture
def page(source: StandIn) -> TradingRadar:
    return TradingRadar(source)


def from_page(part: ipywidgets.Widget, **state: Any) -> None:
    """Set traits as a message of a page does."""
    part.set_state(state)


def shown(page: TradingRadar) -> str:
    return str(page.chart.figure.layout.title.text)


def test_the_most_traded_stock_is_charted_at_first(page: TradingRadar, source: StandIn):
    assert page.scanner.selected == 7
    assert source.asked == [(7, "1d")]
    assert "삼성전자" in shown(page)
    assert page.chart.figure.data[0].close[0] == 701.0


def test_a_choice_in_the_table_is_charted_in_the_same_figure(page: TradingRadar):
    figure = page.chart.figure
    from_page(page.scanner, selected=9)
    assert page.chart.figure is figure
    assert "035720" in shown(page)
    assert "&lt;img src=x&gt;" in shown(page)
    assert figure.data[0].close[0] == 901.0


def test_a_timeframe_button_asks_for_the_same_stock_again(page: TradingRadar, source: StandIn):
    from_page(page.chart.timeframe, index=1)
    assert source.asked[-1] == (7, "1w")
    assert "weekly" in shown(page)


def test_a_chart_that_fails_is_a_sentence_and_no_old_picture(page: TradingRadar):
    from_page(page.scanner, selected=8)
    assert "instrument 8: there is &lt;none&gt; with this id." in page.chart.message.value
    assert page.chart.data is None
    assert len(page.chart.figure.data[0].x) == 0
    assert shown(page) == ""
    from_page(page.scanner, selected=7)
    assert page.chart.message.value == ""
    assert "삼성전자" in shown(page)


@pytest.mark.parametrize("nonsense", [99, -1, "7", 7.5, [7], {"id": 7}])
def test_a_page_can_choose_only_what_the_table_holds(page: TradingRadar, source: StandIn, nonsense: Any):
    with pytest.raises(TraitError):
        from_page(page.scanner, selected=nonsense)
    assert page.scanner.selected == 7
    assert source.asked == [(7, "1d")]


def test_a_page_cannot_widen_the_choice_by_changing_the_table(page: TradingRadar):
    with pytest.raises(TraitError):
        from_page(page.scanner, table={"columns": [], "rows": {"id": [99]}}, selected=99)


@pytest.mark.parametrize("nonsense", [3, -1, "1d", 1e9])
def test_a_page_can_choose_only_our_timeframes(page: TradingRadar, source: StandIn, nonsense: Any):
    with pytest.raises(TraitError):
        from_page(page.chart.timeframe, index=nonsense)
    assert page.chart.timeframe.value == "1d"
    assert source.asked == [(7, "1d")]


def test_moving_the_window_fits_prices_and_dates_to_it(page: TradingRadar):
    page.chart.figure.plotly_relayout({"xaxis.range": [9.5, 20.4]})
    # Bars 10 to 20: lows from 708, highs to 722; 14 high with 0.84 of air on either side.
    assert page.chart.figure.layout.yaxis.range == pytest.approx((707.16, 722.84))
    assert page.chart.figure.layout.xaxis.ticktext == ("2024-01-15", "01-22", "01-29")


@pytest.mark.parametrize("span", [("a", "b"), (5, 2), (float("nan"), 3), (0, 1e12), None, (1,), (1, 2, 3)])
def test_a_window_that_is_none_moves_nothing(page: TradingRadar, span: Any):
    before = page.chart.figure.layout.yaxis.range
    page.chart._moved(None, span)
    assert page.chart.figure.layout.yaxis.range == before


def test_a_page_opened_later_gets_the_chart_of_now(page: TradingRadar):
    from_page(page.scanner, selected=9)
    state = page.chart.figure.get_state()
    assert "035720" in state["_widget_layout"]["title"]["text"]


def test_a_hundred_charts_make_no_further_widget(page: TradingRadar):
    before = len(widget._instances)
    for _ in range(50):
        page.scanner.selected = 9
        page.scanner.selected = 7
    assert len(widget._instances) == before


def test_a_look_reads_again_and_draws_again_only_when_something_changed(page: TradingRadar, source: StandIn):
    look = {"kind": "look"}
    page.look._handle_custom_msg(look, [])
    assert source.asked == [(7, "1d")]
    source.day = date(2024, 3, 11)
    page.look._handle_custom_msg(look, [])
    assert source.asked == [(7, "1d"), (7, "1d")]
    assert "2024-03-11" in page.status.value


class Pulses:
    """A health that stands as it is told, one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def status(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_strip_says_how_the_health_page_stands_and_what_runs_next(source: StandIn):
    noon = datetime(2024, 3, 8, 12, tzinfo=UTC)
    soon, later = (
        SimpleNamespace(name=name, next_slot=noon.replace(minute=at)) for name, at in (("scan", 5), ("list", 30))
    )
    red = SimpleNamespace(state="red", now=noon, jobs=[later, soon, SimpleNamespace(name="never", next_slot=None)])
    page = TradingRadar(source, health=Pulses(red, NotFound("gone"), red))
    assert '<span class="ci-state ci-red">RED</span><span><i>next</i>scan 12:05</span>' in page.status.value
    page.refresh()
    assert "ci-state" not in page.status.value  # not known: nothing is said, and the prices stay
    assert "2024-03-08" in page.status.value
    page.refresh()
    assert "RED" in page.status.value


@pytest.mark.parametrize("message", [None, "look", {}, {"kind": ["look"]}, {"kind": "drop"}])
def test_other_messages_of_a_page_do_nothing(page: TradingRadar, source: StandIn, message: Any):
    source.day = date(2024, 3, 11)
    page.look._handle_custom_msg(message, [])
    assert "2024-03-11" not in page.status.value


def test_a_radar_that_cannot_be_read_is_said_without_its_secrets(source: StandIn):
    source.broken = True
    page = TradingRadar(source)
    assert "The radar cannot be read (RuntimeError)" in page.status.value
    assert "geheim" not in page.status.value
    source.broken = False
    page.refresh()
    assert "삼성전자" in shown(page)


def test_no_scan_yet_says_what_to_run(source: StandIn):
    source.rows = pd.DataFrame()
    page = TradingRadar(source)
    assert "No scan has been made yet. Run <code>./studio up</code>" in page.status.value
    assert page.scanner.selected is None


def test_the_table_is_text_for_people_and_numbers_for_sorting(source: StandIn):
    values = table_values(source.rows)
    rows = values["rows"]
    assert rows["id"] == [8, 7, 9]  # in the order of the codes
    assert rows["text"]["close"] == ["120,000", "◦ 71,400", "48,000"]
    assert rows["text"]["change_pct"] == ["–", "-1.50", "+2.00"]
    assert rows["sort"]["change_pct"] == [None, -1.5, 2.0]
    assert rows["text"]["trend"] == ["▼ 3", "▲ 12", "– 40"]
    assert rows["text"]["value"] == ["9,000억", "7.00조", "–"]
    assert rows["search"][1] == "005930 삼성전자"
    assert rows["hints"]["high_52w_pct"] == {2: "Over the 60 bars there are"}
    assert list(rows["hints"]["code"]) == [1]


def test_without_values_the_volume_is_shown(source: StandIn):
    keys = [column["key"] for column in table_values(source.rows.assign(value=np.nan))["columns"]]
    assert keys[-1] == "volume"


def test_the_choice_stays_when_the_table_is_new(source: StandIn):
    scanner = Scanner()
    scanner.show(source.rows)
    scanner.selected = 9
    scanner.show(source.rows.drop(index=8))
    assert scanner.selected == 9
    scanner.show(source.rows.drop(index=9))
    assert scanner.selected == 7


def test_the_status_takes_nothing_for_markup_and_shows_the_markets_time():
    moment = datetime(2024, 3, 8, 7, 12, tzinfo=UTC)
    html = status_html(Status(source="<b>x</b>", market="KRX", zone="Asia/Seoul", scanned_at=moment, simulated=True))
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "2024-03-08 16:12 KST" in html
    assert "Simulated data" in html


def test_a_single_hole_in_a_million_bars_is_not_a_hundred_per_cent():
    html = status_html(Status(market="KRX", complete=999_999 / 1_000_000, missing=1))
    assert "99.99 % (1 missing)" in html
    assert "<i>complete</i>100 %<" in status_html(Status(market="KRX", complete=1.0))
    assert "complete" not in status_html(Status(market="KRX")), "nothing was checked yet"


def test_old_data_carry_their_sentence():
    assert "<code>./studio up</code>" in status_html(Status(stale="Old <data>. Run `./studio up`."))
    assert "Old &lt;data&gt;." in status_html(Status(stale="Old <data>. Run `./studio up`."))


def test_of_many_bars_those_around_the_window_are_drawn_and_others_when_they_are_looked_at():
    panel = ChartPanel(lambda instrument_id, timeframe: bars(instrument_id, timeframe, n=2000))
    panel.show(7)
    candles = panel.figure.data[0]
    # 160 bars are in view from 1839.2 on, and the room of as many before them and a little more: 164.0 wide.
    assert (candles.x[0], candles.x[-1]) == (1676, 1999)
    assert candles.close[-1] == 700 + 1999 + 1
    panel.figure.plotly_relayout({"xaxis.range": [500.0, 600.0]})
    assert (candles.x[0], candles.x[-1]) == (400, 701)
    # The pivot at bar 3 lies outside and is not marked, but the zigzag goes on to it.
    assert len(panel.figure.data[5].x) == 0
    assert panel.figure.data[3].x[0] == 3


def test_a_panel_alone_shows_nothing_until_it_is_told():
    panel = ChartPanel(bars)
    assert panel.data is None
    panel.show(7)
    assert panel.data is not None
    panel.show(None)
    assert panel.data is None


# The running day.


def test_an_unfinished_bar_gives_price_change_and_value_and_is_marked(source: StandIn):
    rows = source.rows.assign(
        running_close=[73185.0, np.nan, np.nan], running_value=[1e12, np.nan, np.nan], running_volume=[50.0, np.nan, np.nan],
        final_close=[71400.0, 120000.0, 48000.0],
    )  # fmt: skip
    text = table_values(rows)["rows"]["text"]  # in the order of the codes: 000660, 005930, 035720
    assert text["close"] == ["120,000", "◦ 73,185", "48,000"]
    assert text["change_pct"] == ["–", "+2.50", "+2.00"]  # 73,185 against the final 71,400
    assert text["value"] == ["9,000억", "1.00조", "–"]
    assert text["rsi14"] == ["40", "61", "–"]  # of final bars, as before


def test_on_an_ex_day_the_change_is_against_the_close_on_the_new_basis(source: StandIn):
    rows = source.rows.assign(
        running_close=[14_280.0, np.nan, np.nan], running_value=np.nan, running_volume=np.nan,
        final_close=[71_400.0 / 5, 120000.0, 48000.0],
    )  # fmt: skip
    assert table_values(rows)["rows"]["text"]["change_pct"][1] == "+0.00"


def test_newer_bars_do_not_move_the_window_that_somebody_looks_at_and_reset_does():
    grown = {"n": 50}
    panel = ChartPanel(lambda instrument_id, timeframe: bars(instrument_id, timeframe, n=grown["n"]))
    panel.show(7)
    panel.figure.plotly_relayout({"xaxis.range": [9.5, 20.4]})
    grown["n"] = 53
    panel.show(7)
    assert panel.figure.layout.xaxis.range == (9.5, 20.4)
    assert panel.figure.layout.yaxis.range == pytest.approx((707.16, 722.84))
    assert panel.figure.data[0].x[-1] == 32  # the window, and as much room beside it
    panel.show(9)  # another instrument begins at its newest bars
    assert panel.figure.layout.xaxis.range[1] > 52
    panel.figure.plotly_relayout({"xaxis.range": [9.5, 20.4]})
    panel._look_at_newest()
    assert panel.figure.layout.xaxis.range[1] > 52


def test_a_page_that_was_prepared_without_data_is_filled_without_naming_an_axis_and_its_parts_at_once(monkeypatch):
    """plotly's front end refuses a message that does, and the chart stays blank."""
    panel = ChartPanel(bars)
    sent: list[set[str]] = []
    monkeypatch.setattr(
        panel.figure, "_send_update_msg", lambda relayout_data=None, **_: sent.append(set(relayout_data or {}))
    )
    panel.show(7)
    assert any("yaxis2.range" in names or "yaxis2.gridcolor" in names for names in sent)
    for names in sent:
        assert [name for name in names if any(other.startswith(f"{name}.") for other in names)] == []


@pytest.mark.parametrize(("market", "habit"), [("KRX", "east"), ("SIM", "east"), ("US", "west")])
def test_colours_follow_the_habit_of_the_market_and_a_simulated_one_is_korean(source: StandIn, market: str, habit: str):
    scanner = Scanner()
    scanner.show(source.rows.assign(market=market))
    assert scanner.habit == habit
