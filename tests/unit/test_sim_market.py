"""The invented market: reproducible, within KRX's rules, and like a market in the large."""

import re
import subprocess
import sys
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.simulator.flows import INSTITUTIONS
from chartinsight_lib.simulator.generated import GeneratedMarket
from chartinsight_lib.simulator.model import DailyBars

SEED = 7
SINCE_2023 = [(2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500), (10**9, 1_000)]
WATCHED = date(2026, 9, 18)


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(SEED)


def codes(market: GeneratedMarket, *kinds: str) -> list[str]:
    return [one.code for one in market.listings if not kinds or one.kind in kinds]


def tick(price: int, kind: str = "stock") -> int:
    """As KRX prints it: the step at a price."""
    table = [(2_000, 1), (10**9, 5)] if kind in {"etf", "etn"} else SINCE_2023
    return next(step for below, step in table if price < below)


def bases(market: GeneratedMarket, code: str) -> np.ndarray:
    """The base price of each day; the first is not known from outside."""
    bars = market.daily(code)
    found = np.concatenate((bars.close[:1], bars.close[:-1]))
    for event in market.events(code):
        found[np.searchsorted(bars.day, np.datetime64(event.ex_day))] = event.base_price
    return found


def same(one: DailyBars, other: DailyBars) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in DailyBars.__dataclass_fields__)


def returns(market: GeneratedMarket, code: str) -> pd.Series:
    bars = market.daily(code)
    return pd.Series(np.log(bars.close[1:] / bases(market, code)[1:]), index=bars.day[1:])


def test_the_same_seed_gives_the_same_market_in_another_order(market):
    other = GeneratedMarket(SEED)
    assert other.listings == market.listings
    some = codes(market)[::30]
    late = {code: (other.daily(code), other.minutes(code, WATCHED)) for code in reversed(some)}
    for code in some:
        assert same(market.daily(code), late[code][0])
        assert np.array_equal(market.minutes(code, WATCHED).value, late[code][1].value)
        assert other.events(code) == market.events(code)


def test_the_same_seed_gives_the_same_market_in_another_process(market):
    code = codes(market, "stock")[40]
    program = (
        "import hashlib; from datetime import date; from chartinsight_lib.simulator.generated import GeneratedMarket;"
        f"m = GeneratedMarket({SEED}); b = m.minutes({code!r}, date(2026, 9, 18));"
        f"print(hashlib.sha256(m.daily({code!r}).close.tobytes() + b.value.tobytes()).hexdigest())"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": h}
        )
        for h in ("1", "2")
    ]
    assert len({run.stdout for run in done}) == 1


def test_another_seed_gives_another_market(market):
    other = GeneratedMarket(SEED + 1)
    assert {one.names[0][1] for one in other.listings} != {one.names[0][1] for one in market.listings}
    assert not np.array_equal(other.index("001").close, market.index("001").close)


def test_a_shorter_horizon_shows_a_part_of_the_same_market(market):
    part = GeneratedMarket(SEED, first_day=date(2024, 3, 4), last_day=date(2024, 12, 30))
    code = next(one.code for one in part.listings if one.listed_on < date(2016, 1, 1) and one.delisted_on is None)
    whole = market.daily(code)
    inside = (whole.day >= part.days[0]) & (whole.day <= part.days[-1])
    assert np.array_equal(part.daily(code).close, whole.close[inside])
    assert np.array_equal(part.flows(code).columns["orgn"], market.flows(code).columns["orgn"][inside])
    assert np.array_equal(part.minutes(code, date(2024, 5, 7)).close, market.minutes(code, date(2024, 5, 7)).close)


def test_the_past_does_not_change_when_little_is_kept(market):
    small = GeneratedMarket(SEED, keep_days=1, keep_minutes=1)
    for code in codes(market)[:3] * 2:
        assert same(small.daily(code), market.daily(code))


def test_there_are_as_many_instruments_as_asked_for(market):
    assert len(market.listings) == 300
    assert len(GeneratedMarket(1, instruments=40).listings) == 40
    assert len({one.code for one in market.listings}) == 300
    assert len({one.names[0][1] for one in market.listings}) == 300


def test_there_is_every_kind_of_instrument(market):
    kinds = Counter((one.board, one.kind) for one in market.listings)
    assert kinds["KOSPI", "stock"] > 90
    assert kinds["KOSDAQ", "stock"] > 100
    assert kinds["KOSPI", "etf"] > 20
    assert kinds["KOSPI", "etn"] > 5
    assert kinds["KOSPI", "reit"] > 2
    assert kinds["KOSPI", "fund"] == 1
    names = [one.names[0][1] for one in market.listings]
    assert sum(name.endswith("우") for name in names) > 2
    assert 20 < sum(one.nxt for one in market.listings) < 150
    assert any("관리종목" in [state for _, _, state in one.warnings] for one in market.listings)


def test_codes_are_those_of_krx_and_none_is_a_famous_one(market):
    found = codes(market)
    assert found == sorted(found)
    assert all(re.fullmatch(r"[0-9A-Z]{6}", code) for code in found)
    assert sum(bool(re.fullmatch(r"0\d{3}[A-Z]0", code)) for code in found) > 3  # as 0000D0
    assert any(re.fullmatch(r"\d{5}K", code) for code in found)  # as 03473K
    assert {"005930", "000660"}.isdisjoint(found)


@pytest.mark.shared
def test_no_name_is_that_of_a_real_company(market, shared_data):
    real = set(pd.read_parquet(shared_data / "krx_listing.parquet")["name"])
    real |= set(pd.read_parquet(shared_data / "krx_delisting.parquet")["name"])
    big = GeneratedMarket(SEED, instruments=2_700)
    assert not real & {name for one in big.listings for _, name in one.names}


def test_the_whole_of_krx_can_be_planned():
    big = GeneratedMarket(SEED, instruments=2_700)
    assert len(big.listings) == 2_700
    assert len(big.daily(big.listings[1_234].code).day) > 0


def test_sectors_are_ascending_and_every_listing_has_one_of_its_board(market):
    found = {sector.code: sector for sector in market.sectors}
    assert list(found) == sorted(found)
    assert {"001", "101"} <= found.keys()
    for one in market.listings:
        if one.kind == "stock":
            assert found[one.sector].board == one.board


def test_prices_are_on_the_tick_grid(market):
    for one in market.listings[::3]:
        bars = market.daily(one.code)
        prices = np.unique(
            np.concatenate([bars.open, bars.high, bars.low, bars.close, bars.after_close, bars.after_high])
        )
        assert [price for price in prices.tolist() if price % tick(price, one.kind)] == []


def test_prices_stay_within_the_limits_of_the_day(market):
    for code in codes(market)[::2]:
        bars, base = market.daily(code), bases(market, code)
        # Percent in whole numbers: 30 % of a base price is exact.
        assert (100 * bars.after_high[1:] <= 130 * base[1:]).all()
        assert (100 * bars.after_low[1:] >= 70 * base[1:]).all()


def test_a_bar_holds_its_open_and_close(market):
    for code in codes(market)[::3]:
        bars = market.daily(code)
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low > 0).all()
        assert ((bars.value >= bars.low * bars.volume) & (bars.value <= bars.high * bars.volume)).all()
        assert (bars.after_high >= np.maximum(bars.high, bars.after_close)).all()
        assert (bars.after_low <= np.minimum(bars.low, bars.after_close)).all()


def test_there_is_no_after_market_before_its_first_day(market):
    for code in codes(market)[::20]:
        bars = market.daily(code)
        before = bars.day < np.datetime64("2026-09-14")
        assert not bars.after_volume[before].any()
        assert (bars.after_close == bars.close)[before].all()
        assert (bars.after_high == bars.high)[before].all()


def test_the_after_market_moves_prices_as_it_was_measured_to():
    """Source: the specification, section 7.1: 21 % of names equal; median of the others' move about 0.4 %."""
    market = GeneratedMarket(SEED, first_day=date(2026, 9, 14), last_day=date(2026, 12, 30))
    bars = [market.daily(code) for code in codes(market, "stock")]
    moves = np.concatenate([np.abs(one.after_close / one.close - 1)[~one.halted] for one in bars])
    assert 0.08 < (moves == 0).mean() < 0.35
    assert 0.002 < np.median(moves) < 0.006
    assert 0.02 < np.quantile(moves, 0.99) < 0.08


def test_a_halted_day_repeats_the_close_and_trades_nothing(market):
    halts = 0
    for code in codes(market):
        bars = market.daily(code)
        rows = np.flatnonzero(bars.halted[1:]) + 1
        halts += len(rows)
        for prices in (bars.open, bars.high, bars.low, bars.close, bars.after_close):
            assert np.array_equal(prices[rows], bars.close[rows - 1])
        assert not bars.volume[rows].any() and not bars.after_volume[rows].any() and not bars.value[rows].any()
    assert halts > 500


def test_nothing_but_a_halt_stops_trading(market):
    for code in codes(market)[::5]:
        bars = market.daily(code)
        assert (bars.volume[~bars.halted] > 0).all()


def test_events_name_the_close_before_and_a_base_on_the_grid(market):
    kinds = Counter()
    for code in codes(market):
        bars = market.daily(code)
        for event in market.events(code):
            row = int(np.searchsorted(bars.day, np.datetime64(event.ex_day)))
            assert event.previous_close == bars.close[row - 1]
            assert event.base_price % tick(event.base_price) == 0
            assert bars.volume[row] > 0
            kinds[event.kind] += 1
    assert min(kinds[kind] for kind in ("split", "reverse", "rights", "bonus")) >= 10


def test_shares_grow_as_the_price_is_split(market):
    seen = 0
    for one in market.listings:
        for event in market.events(one.code):
            before, after = one.shares_on(event.ex_day - timedelta(days=1)), one.shares_on(event.ex_day)
            if event.kind in {"split", "reverse", "bonus"}:
                step = tick(event.base_price) / event.base_price + tick(event.previous_close) / event.previous_close
                assert after / before == pytest.approx(event.previous_close / event.base_price, rel=step + 1e-4)
                seen += 1
            else:
                assert after > before  # a rights issue sells below the market: the price falls less than shares grow
    assert seen > 30


def test_most_splits_come_after_a_halt(market):
    found = []
    for code in codes(market):
        bars = market.daily(code)
        rows = [np.searchsorted(bars.day, np.datetime64(e.ex_day)) for e in market.events(code) if e.kind == "split"]
        found += [bool(bars.halted[row - 1]) for row in rows]
    assert 0.6 < np.mean(found) < 1


@pytest.mark.parametrize("since", [WATCHED, date(2026, 12, 21), date(2027, 3, 22), date(2027, 6, 21)])
def test_who_watches_for_sixty_days_sees_everything_happen(market, since):
    days = market.days[market.days >= np.datetime64(since)][:60]
    inside = range(since.toordinal(), days[-1].item().toordinal() + 1)

    def happens(day: date | None) -> bool:
        return day is not None and day.toordinal() in inside

    events = Counter(e.kind for code in codes(market) for e in market.events(code) if happens(e.ex_day))
    assert events.keys() == {"split", "reverse", "rights", "bonus"}
    assert any(happens(one.listed_on) for one in market.listings)
    assert any(happens(one.delisted_on) for one in market.listings)
    assert any(happens(day) for one in market.listings for day, _ in one.names[1:])
    halted = [market.daily(code).halted[np.isin(market.daily(code).day, days)].any() for code in codes(market)]
    assert sum(halted) >= 5


def test_bars_exist_exactly_while_an_instrument_is_listed(market):
    young = old = 0
    for one in market.listings:
        listed = [day for day in market.days if one.listed(day.item())]
        assert np.array_equal(market.daily(one.code).day, np.array(listed))
        young += one.listed_on > market.days[0].item()
        old += one.delisted_on is not None and one.delisted_on <= market.days[-1].item()
    assert young > 30
    assert old > 20


def test_a_rename_changes_the_name_from_its_day_on(market):
    one = next(one for one in market.listings if len(one.names) > 1)
    day = one.names[1][0]
    assert one.name_on(day) != one.name_on(day - timedelta(days=1))


def test_new_shares_move_more_than_thirty_percent_on_some_first_days(market):
    wide = [
        bars.high[0] / bars.low[0]
        for one in market.listings
        if one.kind == "stock" and one.listed_on > date(2023, 6, 26)
        for bars in [market.daily(one.code)]
    ]
    assert max(wide) > 1.3
    assert max(wide) < 4 / 0.6


def test_returns_have_fat_tails_and_clustered_volatility(market):
    kurtosis, memory = [], []
    for code in codes(market, "stock")[::4]:
        found = returns(market, code)
        centred = found - found.mean()
        kurtosis.append((centred**4).mean() / (centred**2).mean() ** 2 - 3)
        size = centred.abs()
        memory.append(size.autocorr(1))
    assert np.median(kurtosis) > 1
    assert np.median(memory) > 0.05


def test_a_sectors_stocks_move_together_more_than_others(market):
    """Kept apart from the whole by chance alone, the difference would be near 0; the sectors' share of variance is 5 to 15 %."""
    board = [one for one in market.listings if one.kind == "stock" and one.board == "KOSPI"]
    moves = pd.DataFrame({one.code: returns(market, one.code) for one in board}).loc["2018":]
    correlation = moves.corr(min_periods=500).to_numpy()
    sector = np.array([one.sector for one in board])
    alike = sector[:, None] == sector[None, :]
    pairs = np.triu(np.ones_like(alike), 1).astype(bool)
    within, across = np.nanmean(correlation[alike & pairs]), np.nanmean(correlation[~alike & pairs])
    assert within > across + 0.03
    assert across > 0.05


def test_volume_rises_with_the_move(market):
    found = []
    for code in codes(market, "stock")[::10]:
        bars = market.daily(code)
        traded = bars.volume[1:] > 0
        found.append(np.corrcoef(np.log(bars.volume[1:][traded]), returns(market, code).abs()[traded])[0, 1])
    assert np.median(found) > 0.2


def test_an_index_is_a_bar_of_its_own_days_and_its_stocks_follow_it(market):
    for code in ("001", "101", "013", "136"):
        bars = market.index(code)
        assert np.array_equal(bars.day, market.days)
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.volume > 0).all()
        assert not bars.after_volume.any()
    whole = pd.Series(np.diff(np.log(market.index("001").close)), index=market.days[1:])
    board = [one.code for one in market.listings if one.kind == "stock" and one.board == "KOSPI"]
    average = pd.DataFrame({code: returns(market, code) for code in board}).mean(axis=1)
    assert whole.corr(average) > 0.8


def test_what_is_bought_is_sold(market):
    for code in codes(market)[::40]:
        columns, bars = market.flows(code).columns, market.daily(code)
        whole = sum(columns[name] for name in ("ind_invsr", "frgnr_invsr", "orgn", "etc_corp", "natfor"))
        assert not whole.any()
        assert np.array_equal(columns["orgn"], sum(columns[name] for name in INSTITUTIONS))
        assert (np.abs(columns["frgnr_invsr"]) <= bars.volume).all()
        assert columns["ind_invsr"].any()


def test_unknown_codes_and_days_are_told(market):
    for ask in (market.daily, market.events, market.flows, market.index):
        with pytest.raises(KeyError):
            ask("999999")
    with pytest.raises(KeyError):
        market.minutes("999999", WATCHED)
    assert market.session(date(2026, 9, 24)) is None  # Chuseok
    assert market.session(date(2030, 1, 2)) is None


def test_what_is_shared_cannot_be_changed(market):
    with pytest.raises(ValueError, match="read-only"):
        market.daily(codes(market)[0]).close[0] = 1


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 1, "instruments": 3}, {"seed": 1, "last_day": date(2030, 1, 1)}]
)
def test_an_impossible_market_is_refused(wrong):
    with pytest.raises(ConfigError):
        GeneratedMarket(**wrong)
