"""For how long an endpoint is left alone, when a request is sent again, how full it is: pure, so properties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.filling import fill
from ragworks.policies.holding import Held, hold
from ragworks.policies.retrying import BudgetSettings, RetrySettings, again, backoff_s, earned

SETTINGS = RetrySettings(base_delay_s=1.0, max_delay_s=8.0)
NOW = 100.0

states = st.builds(Held, failures=st.integers(0, 3), until=st.sampled_from([0.0, 99.0, 100.0, 101.5, 200.0]))


@given(states, st.integers(), st.one_of(st.none(), st.floats(0, 3600)))
def test_a_failure_holds_the_endpoint_and_never_shortens_what_was_asked(held, seed, named_s) -> None:
    after = hold(SETTINGS, held, named_s, NOW, Random(seed)).held
    assert after.until >= max(held.until, NOW + (named_s or 0.0), NOW + 0.5)
    assert after.until <= max(held.until, NOW + max(named_s or 0.0, 8.0))


def test_requests_that_fail_together_count_as_one_failure() -> None:
    held = Held()
    for _ in range(4):
        held = hold(SETTINGS, held, None, NOW, Random(0)).held
    assert held.failures == 1
    assert hold(SETTINGS, held, None, NOW + 60, Random(0)).held.failures == 2


def test_the_reason_says_who_named_the_time() -> None:
    assert hold(SETTINGS, Held(), 7.0, NOW, Random(0)).reason == "the time that it named; left alone for 7.0 s"
    assert hold(SETTINGS, Held(2), 0.1, NOW, Random(0)).reason.startswith("failure 3 in a row; left alone for ")


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
