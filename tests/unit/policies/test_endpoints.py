"""Which endpoint is asked, for how long one is left out, when a request is sent again: pure, so properties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.endpoints import TRIAL_S, EndpointState, answered, choose, ended, failed, started
from ragworks.policies.filling import fill
from ragworks.policies.retrying import BudgetSettings, RetrySettings, again, backoff_s, earned

SETTINGS = RetrySettings(base_delay_s=1.0, max_delay_s=8.0)
NOW = 100.0

states = st.builds(
    EndpointState,
    in_flight=st.integers(0, 4),
    sent=st.integers(0, 9),
    failures=st.integers(0, 3),
    out_until=st.sampled_from([0.0, 99.0, 100.0, 101.5, 200.0]),
)


@given(st.lists(states, min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_an_endpoint_that_is_out_or_was_tried_is_never_asked_and_a_free_one_always(seen, tried) -> None:
    choice = choose(seen, NOW, tried)
    free = {
        place
        for place, one in enumerate(seen)
        if place not in tried and one.out_until <= NOW and not (one.failures and one.in_flight)
    }
    if choice.place is None:
        assert not free
        assert choice.wait_s >= 0
    else:
        assert choice.place in free
        assert seen[choice.place].in_flight == min(seen[place].in_flight for place in free)


def test_with_all_left_out_the_wait_is_until_the_first_comes_back() -> None:
    choice = choose([EndpointState(out_until=130.0), EndpointState(out_until=103.0)], NOW)
    assert (choice.place, choice.wait_s) == (None, 3.0)


def test_one_request_tries_an_endpoint_that_comes_back_and_the_others_wait_for_its_outcome() -> None:
    back = EndpointState(failures=2, out_until=99.0)
    assert choose([back], NOW).place == 0
    assert choose([started(back)], NOW).wait_s == TRIAL_S
    assert choose([answered(started(back))], NOW).place == 0


def test_idle_endpoints_take_turns() -> None:
    seen, order = [EndpointState()] * 3, []
    for _ in range(6):
        place = choose(seen, NOW).place
        assert place is not None
        order.append(place)
        seen[place] = ended(started(seen[place]))
    assert order == [0, 1, 2, 0, 1, 2]


@given(states, st.integers(), st.one_of(st.none(), st.floats(0, 3600)))
def test_a_failure_leaves_the_endpoint_out_and_never_shortens_what_was_asked(state, seed, retry_after_s) -> None:
    after = failed(SETTINGS, state, NOW, Random(seed), retry_after_s)
    assert after.out_until >= max(state.out_until, NOW + (retry_after_s or 0.0), NOW + 0.5)
    assert answered(after).out_until == after.out_until


def test_requests_that_fail_together_count_as_one_failure() -> None:
    state = EndpointState(in_flight=4)
    for _ in range(4):
        state = failed(SETTINGS, state, NOW, Random(0), None)
    assert state.failures == 1
    assert failed(SETTINGS, state, NOW + 60, Random(0), None).failures == 2


@given(st.integers(1, 10**6), st.integers())
def test_the_backoff_doubles_and_is_bounded_however_often_it_failed(failures, seed) -> None:
    assert 0.5 <= backoff_s(SETTINGS, failures, Random(seed)) <= 8.0
    assert backoff_s(SETTINGS, failures + 3, Random(seed)) >= backoff_s(SETTINGS, failures, Random(seed))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 10), st.integers(1, 100))
def test_a_request_is_as_full_as_its_limits_allow_and_never_empty_while_a_text_waits(sizes, texts, size) -> None:
    taken = fill(sizes, texts, size)
    assert taken <= texts
    assert taken >= min(1, len(sizes))
    assert taken <= 1 or sum(sizes[:taken]) <= size
    if taken < min(len(sizes), texts):
        assert sum(sizes[: taken + 1]) > size


@pytest.mark.parametrize(
    ("wait_s", "left_s", "saved", "asked", "sent", "said"),
    [
        (1.0, 5.0, 3.0, False, True, "3.0 retries were left"),
        (1.0, 5.0, 0.9, False, False, "budget is spent"),
        (1.0, 5.0, 0.0, True, True, "named the time"),
        (6.0, 5.0, 9.0, True, False, "next try in 6.0 s"),
        (0.0, -1.0, 9.0, False, False, "waits 0.0 s more"),
    ],
)
def test_a_request_is_sent_again_within_its_patience_and_the_budget(wait_s, left_s, saved, asked, sent, said) -> None:
    decision = again(wait_s, left_s, saved, asked=asked)
    assert decision.delay_s == (wait_s if sent else None)
    assert said in decision.reason


@given(st.floats(0, 20))
def test_what_is_saved_for_retries_is_bounded(saved) -> None:
    assert saved <= earned(BudgetSettings(), saved) <= 20
