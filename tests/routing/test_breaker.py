"""The breaker, the retry budget and the measure of latency, by a clock of the test's own."""

from __future__ import annotations

import pytest

from trunkline.v1alpha import route_pb2
from trunkline_server.errors import LLMBadRequestError, LLMRateLimitError, LLMServerError
from trunkline_server.routing.breaker import CLOSED, HALF_OPEN, MOST_COOL_DOWN, OPEN, Breaker, BreakerPolicy
from trunkline_server.routing.budget import MOST, RESERVE, RetryBudget
from trunkline_server.routing.health import Health, Healths, TargetKey
from trunkline_server.routing.latency import MEMORY, Latency

POLICY = BreakerPolicy(consecutive_failures=3, failure_ratio=0.5, min_attempts=10, window=30.0, cool_down=5.0)


def broken(now: float = 100.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.failed(now, now)
    assert breaker.state == OPEN
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(POLICY)
    breaker.failed(1, 1)
    breaker.failed(2, 2)
    breaker.succeeded(3, 3)
    breaker.failed(4, 4)
    breaker.failed(5, 5)
    assert breaker.permits(5)

    breaker.failed(6, 6)
    assert not breaker.permits(6)


def test_a_share_of_failures_opens_it_once_there_are_enough_attempts() -> None:
    breaker = Breaker(POLICY)
    for at in range(4):
        breaker.failed(at, at)
        breaker.succeeded(at, at)
    assert breaker.counts(4) == (8, 4)
    assert breaker.state == CLOSED

    breaker.succeeded(5, 5)
    breaker.failed(5, 5)
    assert breaker.state == OPEN


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker(POLICY)
    for _ in range(9):
        breaker.failed(1, 1)
        breaker.succeeded(1, 1)
        breaker.state = CLOSED
    assert breaker.counts(20)[1] == 9
    assert breaker.counts(40) == (0, 0)


def test_one_call_at_once_probes_a_target_that_was_left_alone() -> None:
    breaker = broken(100)
    assert not breaker.permits(104.9)
    assert breaker.permits(105)
    assert [breaker.state_at(now) for now in (104.9, 105)] == [OPEN, HALF_OPEN]

    assert breaker.began(105)
    assert breaker.state == HALF_OPEN
    assert not breaker.permits(105)
    assert not breaker.began(105)

    breaker.succeeded(106, 105, probe=True)
    assert breaker.state == CLOSED
    assert breaker.counts(106) == (0, 0)


def test_a_probe_that_tells_nothing_gives_its_place_to_another() -> None:
    breaker = broken(100)
    breaker.left(breaker.began(105))

    assert breaker.permits(106)


def test_the_cool_down_doubles_up_to_a_bound_and_is_short_again_after_a_good_time() -> None:
    breaker = broken(100)
    now, times = 100.0, []
    for _ in range(9):
        times.append(breaker.until - now)
        now = breaker.until
        assert breaker.began(now)
        breaker.failed(now, now, probe=True)
    assert times == [5, 10, 20, 40, 80, 160, MOST_COOL_DOWN, MOST_COOL_DOWN, MOST_COOL_DOWN]

    now = breaker.until
    breaker.succeeded(now, now, probe=breaker.began(now))
    for _ in range(3):
        breaker.failed(now + 1, now + 1)
    assert breaker.until == now + 1 + MOST_COOL_DOWN, "it was well for a moment only"

    now = breaker.until
    breaker.succeeded(now, now, probe=breaker.began(now))
    for _ in range(3):
        breaker.failed(now + 31, now + 31)
    assert breaker.until == now + 31 + 5


def test_what_was_on_its_way_when_it_opened_changes_nothing() -> None:
    breaker = broken(100)
    until = breaker.until
    breaker.failed(101, 99)
    breaker.succeeded(102, 99)
    assert (breaker.state, breaker.until) == (OPEN, until)

    # The last target of a route is tried all the same: what it says counts.
    breaker.succeeded(103, 102)
    assert breaker.state == CLOSED


def test_the_word_of_the_provider_wins() -> None:
    health = Health(POLICY)
    health.failed(LLMRateLimitError("", retry_after=42), 100, 100, False, answered=False)
    assert (health.breaker.state, health.breaker.until) == (OPEN, 142)

    health.failed(LLMRateLimitError("", retry_after=10**9), 100, 100, False, answered=False)
    assert health.breaker.until == 100 + 3600


def test_failures_elsewhere_are_believed_for_one_cool_down() -> None:
    breaker = Breaker(POLICY)
    breaker.heard(100, MOST_COOL_DOWN, said=False)
    assert (breaker.state, breaker.until) == (OPEN, 105)

    breaker.heard(104, MOST_COOL_DOWN, said=False)
    assert breaker.until == 105, "its own probe comes next"

    assert breaker.began(105)
    breaker.failed(105, 105, probe=True)
    assert breaker.until == 110


def test_failures_elsewhere_mean_nothing_where_the_target_was_seen_to_be_well_again() -> None:
    breaker = Breaker(POLICY)
    breaker.heard(100, 5, said=False)
    breaker.succeeded(106, 105, probe=breaker.began(105))
    breaker.heard(107, 5, said=False)
    assert breaker.state == CLOSED

    breaker.heard(137, 5, said=False)
    assert breaker.state == OPEN


def test_the_word_of_the_provider_heard_elsewhere_shortens_nothing() -> None:
    breaker = broken(100)
    breaker.heard(101, 2, said=True)
    assert breaker.until == 105
    assert breaker.began(105)
    breaker.heard(105.5, 10**9, said=True)
    assert (breaker.state_at(106), breaker.until) == (OPEN, 105.5 + 3600)

    breaker.succeeded(106, 105, probe=True)
    assert breaker.state == CLOSED


def test_only_what_went_on_here_is_told() -> None:
    breaker, told = Breaker(POLICY), list[tuple[float, bool]]()
    breaker.told = lambda seconds, said: told.append((seconds, said))
    breaker.heard(100, 5, said=False)
    breaker.heard(100, 50, said=True)
    assert not told

    breaker.cool(100, 60)
    breaker.succeeded(101, 100.5)
    for _ in range(3):
        breaker.failed(102, 102)
    assert told == [(60, True), (5, False)]


def test_what_the_request_is_blamed_for_does_not_count() -> None:
    health = Health(POLICY)
    for _ in range(50):
        health.failed(LLMBadRequestError(""), 1, 1, False, answered=False)
    assert health.breaker.state == CLOSED


def test_a_stream_that_breaks_later_is_one_attempt() -> None:
    health = Health(POLICY)
    health.breaker.succeeded(1, 1)
    health.failed(LLMServerError(""), 2, 1, False, answered=True)
    assert health.breaker.counts(2) == (1, 1)


def test_a_policy_is_told_in_part() -> None:
    told = route_pb2.BreakerPolicy(failure_ratio=0.1)
    told.window.FromMilliseconds(1500)

    assert BreakerPolicy.of(told) == BreakerPolicy(failure_ratio=0.1, window=1.5)


def test_targets_are_remembered_across_tables_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline_server.routing.health._REMEMBERED", 10)
    healths = Healths()
    busy = healths.of(TargetKey("p", "m", "", ""), POLICY)
    busy.in_flight = 1
    for number in range(100):
        healths.of(TargetKey("p", f"model {number}", "", ""), POLICY)
    assert len(healths._known) <= 10
    assert healths.of(TargetKey("p", "m", "", ""), POLICY) is busy


# -- budget -----------------------------------------------------------------------------------------------------------


def test_retries_are_a_fifth_of_the_calls_and_a_few() -> None:
    budget = RetryBudget()
    taken = 0
    for _ in range(10_000):
        budget.deposit()
        taken += budget.take(1.0)
    assert taken <= 10_000 * 0.2 + RESERVE
    assert taken > 10_000 * 0.2


def test_a_target_with_few_calls_has_a_retry_all_the_same() -> None:
    budget = RetryBudget()
    while budget.take(1.0):
        pass
    assert budget.take(2.5)
    assert not budget.take(2.5)
    assert sum(budget.take(1000.0) for _ in range(100)) == RESERVE


def test_a_good_time_saves_up_no_storm() -> None:
    budget = RetryBudget()
    for _ in range(1_000_000):
        budget.deposit()
    assert sum(budget.take(1.0) for _ in range(10_000)) <= MOST + 1


# -- latency ----------------------------------------------------------------------------------------------------------


def test_a_peak_is_seen_at_once_and_forgotten_slowly() -> None:
    latency = Latency()
    assert latency.ewma(0) is None
    latency.observe(0.1, 1000)
    latency.observe(5.0, 1001)
    latency.observe(0.1, 1001)
    now = latency.ewma(1001)
    assert now is not None
    assert now > 4.9
    later = latency.ewma(1001 + MEMORY)
    assert later is not None
    assert 1.7 < later < 2


def test_the_p95_is_of_the_latest_times() -> None:
    latency = Latency()
    for number in range(19):
        latency.observe(number, 0)
    assert latency.p95() is None
    for number in range(100):
        latency.observe(number + 1, 0)
    for number in range(128):
        latency.observe((number + 1) / 128, 0)
    p95 = latency.p95()
    assert p95 is not None
    assert 0.94 < p95 < 0.97
