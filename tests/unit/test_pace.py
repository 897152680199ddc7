"""Slots of a quota, on a clock of the test's own: never more than allowed in any window, and as many as allowed."""

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartinsight_lib.errors import RateLimited
from chartinsight_lib.pace import BATCH_S, LATE_S, SHARE, LocalSlots, Pacer


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Counted(LocalSlots):
    """Slots that count how often they are asked."""

    asked = 0

    def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
        self.asked += 1
        return super().reserve(key, count, interval_s)


def pacer(rate: float, clock: FakeTime, slots: LocalSlots | None = None) -> Pacer:
    return Pacer(slots or LocalSlots(clock.monotonic), rate, monotonic=clock.monotonic, sleep=clock.sleep)


def sent(paced: Pacer, clock: FakeTime, pauses: list[float], key: str = "ka10081") -> list[float]:
    """When requests went out, each followed by a pause of the caller's."""
    times = []
    for pause in pauses:
        paced.wait(key, until=clock.now + 1e6)
        times.append(clock.now)
        clock.now += pause
    return times


def fullest_window(times: list[float]) -> int:
    """The most requests in any second, as a server that counts in a sliding window sees them."""
    return max(sum(start <= other < start + 1 for other in times) for start in times)


def test_a_caller_that_never_rests_gets_96_percent_of_five_a_second():
    clock = FakeTime()
    times = sent(pacer(5, clock), clock, [0.0] * 400)
    assert 399 / (times[-1] - times[0]) == pytest.approx(5 * SHARE, rel=1e-6)
    assert fullest_window(times) == 5


@settings(max_examples=200, deadline=None)
@given(
    pauses=st.lists(st.floats(0, 1.5), min_size=20, max_size=120),
    rate=st.sampled_from([1.0, 5.0, 20.0]),
    starts=st.integers(1, 4),
)
def test_whatever_callers_do_no_second_holds_more_requests_than_are_allowed(pauses, rate, starts):
    """Several programs, each with slots of its own reserved ahead, share one quota; they take turns at random lengths."""
    clock = FakeTime()
    slots = LocalSlots(clock.monotonic)
    programs = [pacer(rate, clock, slots) for _ in range(starts)]
    times = []
    for turn, pause in enumerate(pauses):
        programs[turn % starts].wait("ka10081", until=clock.now + 1e6)
        times.append(clock.now)
        clock.now += pause
    # A slot may be used up to LATE_S late, which moves a request by that much against the next ones.
    assert max(sum(start <= other < start + 1 - 2 * LATE_S for other in times) for start in times) <= max(rate, 1)


def test_api_ids_have_quotas_of_their_own():
    clock = FakeTime()
    paced = pacer(5, clock)
    began = clock.now
    for number in range(50):
        paced.wait(f"ka{number}", until=began + 100)
    assert clock.now == began


def test_many_requests_in_a_row_ask_for_slots_once_a_second_and_single_ones_waste_none():
    clock = FakeTime()
    slots = Counted(clock.monotonic)
    paced = pacer(5, clock, slots)
    sent(paced, clock, [0.0] * 104)
    assert slots.asked == 4 + 100 / int(BATCH_S * 5 * SHARE)  # four single ones show that batches will be used
    clock, slots = FakeTime(), Counted()
    slots = Counted(clock.monotonic)
    times = sent(pacer(5, clock, slots), clock, [10.0] * 30)  # a request now and then
    assert times == [1000.0 + 10 * number for number in range(30)]  # none waits
    assert slots.asked == 30


def test_a_refusal_holds_everybody_sets_slots_apart_and_good_behaviour_brings_them_together_again():
    clock = FakeTime()
    paced = pacer(5, clock)
    sent(paced, clock, [0.0] * 10)
    paced.slow_down("ka10081", wait_s=2.0, sent_at=clock.now)
    held_until = clock.now + 2.0
    times = sent(paced, clock, [0.0] * 200)
    assert times[0] >= held_until
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] == pytest.approx(paced.interval_s * 1.25, rel=0.06)
    assert gaps[-1] == pytest.approx(paced.interval_s, rel=1e-9)
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(gaps))


def test_refusals_of_requests_that_were_under_way_already_count_once():
    clock = FakeTime()
    paced = pacer(5, clock)
    sent(paced, clock, [0.0] * 5)
    before = clock.now
    clock.now += 0.1
    for _ in range(4):  # four threads hear of the same crowding
        paced.slow_down("ka10081", wait_s=1.0, sent_at=before)
    times = sent(paced, clock, [0.0] * 2)
    assert times[1] - times[0] == pytest.approx(paced.interval_s * 1.25, rel=0.03)


def test_a_slot_beyond_the_deadline_is_an_error_that_says_how_far_away_it_is():
    clock = FakeTime()
    paced = pacer(1, clock)
    paced.wait("ka10081", until=clock.now + 5)
    with pytest.raises(RateLimited, match=r"ka10081: the next free place in its quota is 1\.0 s away"):
        paced.wait("ka10081", until=clock.now + 0.5)


def test_threads_share_the_slots_of_one_process_and_no_slot_is_used_twice():
    handed: list[int] = []

    class Remembering(LocalSlots):
        def reserve(self, key: str, count: int, interval_s: float) -> tuple[float, float]:
            handed.append(count)
            return super().reserve(key, count, interval_s)

    paced = Pacer(Remembering(), 400)
    threads = [
        threading.Thread(target=lambda: [paced.wait("ka10081", until=1e12) for _ in range(15)]) for _ in range(6)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(handed) >= 90
    assert time.monotonic() - began >= 89 * paced.interval_s  # the ninetieth slot lies so far away
