"""Corporate actions learnt from raw and adjusted closes; the truths are public knowledge."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.clients import open_source
from chartinsight_lib.domain import FACTOR
from chartinsight_lib.errors import SchemaError
from chartinsight_lib.factors import learn_factors

DAYS = pd.bdate_range("2024-01-01", periods=200)


def pairs(close, adjusted, code: str = "AAA") -> pd.DataFrame:
    return pd.DataFrame({"code": code, "date": DAYS[: len(close)], "close": close, "adj_close": adjusted})


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return pd.concat([batch.records for batch in open_source("sample").daily()], ignore_index=True)


@pytest.fixture(scope="module")
def learnt(sample) -> pd.DataFrame:
    return learn_factors(sample)


def test_the_known_splits_are_found_and_no_other(learnt):
    splits = learnt[learnt["kind"] == "split"]
    assert list(
        zip(splits["code"], splits["ex_date"], splits["price_factor"], splits["volume_factor"], strict=True)
    ) == [
        ("AAPL", date(2000, 6, 21), 0.5, 2.0),
        ("AAPL", date(2005, 2, 28), 0.5, 2.0),
        ("MSFT", date(2003, 2, 18), 0.5, 2.0),
    ]


def test_the_known_dividends_are_found_and_no_other(learnt):
    cash = learnt[learnt["kind"] == "dividend"]
    # Apple's first three since 1995; IBM's in every quarter from May 2000 to February 2013; Microsoft's first in
    # February 2003, one in October 2003, two in 2004 (one with the special $3.00), then one a quarter.
    assert cash.groupby("code").size().to_dict() == {"AAPL": 3, "IBM": 52, "MSFT": 37}
    assert cash.loc[cash["code"] == "AAPL", "ex_date"].tolist() == [
        date(2012, 8, 9),
        date(2012, 11, 7),
        date(2013, 2, 7),
    ]
    months = {day.month for day in cash.loc[cash["code"] == "IBM", "ex_date"]}
    assert months == {2, 5, 8, 11}


@pytest.mark.parametrize(
    ("code", "ex_date", "dollars"),
    [
        ("AAPL", date(2012, 8, 9), 2.65),
        ("AAPL", date(2013, 2, 7), 2.65),
        ("MSFT", date(2003, 2, 19), 0.08),
        ("MSFT", date(2004, 11, 15), 3.08),
        ("IBM", date(2000, 5, 8), 0.13),
        ("IBM", date(2013, 2, 6), 0.85),
    ],
)
def test_a_dividend_has_the_size_that_was_paid(sample, learnt, code, ex_date, dollars):
    factor = learnt.set_index(["code", "ex_date"])["price_factor"].loc[code, ex_date]
    close = sample.set_index(["code", "date"])["close"].loc[code, ex_date.isoformat()]
    # This source's factor is close / (close + dividend), with the close of the ex-day.
    assert close / factor - close == pytest.approx(dollars, abs=0.001)


@pytest.mark.parametrize(("decimals", "raw_decimals"), [(2, 4), (3, 4), (4, 4), (2, 2), (4, 2)])
def test_rounding_adds_no_event_and_moves_none(sample, learnt, decimals, raw_decimals):
    rounded = learn_factors(
        sample.assign(adj_close=sample["adj_close"].round(decimals), close=sample["close"].round(raw_decimals))
    )
    assert rounded[["code", "ex_date", "kind"]].equals(learnt[["code", "ex_date", "kind"]])
    np.testing.assert_allclose(rounded["price_factor"], learnt["price_factor"], rtol=4e-4)


def test_factors_turn_raw_closes_into_the_adjusted_ones_without_a_cliff(sample, learnt):
    for code, one in sample.groupby("code"):
        days = pd.to_datetime(one["date"]).dt.date
        factor = np.ones(len(one))
        for action in learnt[learnt["code"] == code].itertuples():
            factor[(days < action.ex_date).to_numpy()] *= action.price_factor
        ratio = one["close"].to_numpy() * factor / one["adj_close"].to_numpy()
        np.testing.assert_allclose(ratio, ratio[-1], rtol=1e-6)  # a later split (Apple 2014, 7:1) is a constant


def test_a_reverse_split_multiplies_older_prices():
    event = learn_factors(pairs([5.0] * 50 + [50.0] * 50, [50.0] * 100)).iloc[0]
    assert (event["ex_date"], event["price_factor"], event["volume_factor"], event["kind"]) == (
        DAYS[50].date(),
        10,
        0.1,
        "split",
    )


def test_a_split_in_a_file_of_four_days_is_found():
    assert learn_factors(pairs([100.0, 100.0, 50.0, 50.0], [50.0] * 4))["price_factor"].tolist() == [0.5]


def test_a_tenth_paid_in_cash_is_a_dividend_and_no_split():
    event = learn_factors(pairs([100.0] * 50 + [90.0] * 50, [90.0] * 100)).iloc[0]
    assert (event["kind"], event["volume_factor"]) == ("dividend", 1.0)
    assert event["price_factor"] == pytest.approx(0.9, rel=1e-4)


def test_a_step_inside_the_rounding_is_no_event():
    close = np.full(100, 8.0)
    assert learn_factors(pairs(close, np.where(np.arange(100) < 50, 4.001, 4.004).round(2))).empty


def test_a_single_bad_day_is_no_event():
    adjusted = [50.0] * 40 + [49.0] + [50.0] * 59
    assert learn_factors(pairs([100.0] * 100, adjusted)).empty


def test_a_ratio_that_never_rests_is_refused():
    noise = np.random.default_rng(7).uniform(0.9, 1.1, 200)
    with pytest.raises(SchemaError, match=r"factors AAA: the ratio .* changes \d+ times in 200 days"):
        learn_factors(pairs(np.full(200, 100.0), 100 * noise))


def test_without_adjusted_closes_nothing_can_be_learnt():
    with pytest.raises(SchemaError, match="lack adj_close"):
        learn_factors(pairs([1.0], [1.0]).drop(columns="adj_close"))


def test_rows_without_both_closes_and_no_rows_at_all_give_no_factors():
    nothing = pairs([100.0, 0.0, np.nan], [np.nan, 1.0, 1.0])
    for records in (nothing, nothing.iloc[:0]):
        found = learn_factors(records)
        assert found.empty
        assert list(found.columns) == FACTOR


@settings(deadline=None)  # other work on the machine must not fail it
@given(
    seed=st.integers(0, 2**32 - 1),
    split=st.sampled_from([2, 3, 5, 10, 50, 1.5]),
    ex=st.integers(5, 190),
    decimals=st.sampled_from([2, 3, 4]),
)
def test_a_split_on_any_day_is_found_exactly_whatever_prices_do(seed, split, ex, decimals):
    adjusted = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, len(DAYS)))).round(4)
    close = (adjusted * np.where(np.arange(len(DAYS)) < ex, split, 1)).round(2)
    (event,) = learn_factors(pairs(close, adjusted.round(decimals))).itertuples(index=False)
    assert (event.ex_date, event.kind) == (DAYS[ex].date(), "split")
    assert event.price_factor == pytest.approx(1 / split, rel=1e-12)
    assert event.volume_factor == pytest.approx(split, rel=1e-12)
