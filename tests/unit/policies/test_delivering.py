"""What follows an attempt at a webhook: pure, so stated as properties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.delivering import LONGEST_S, RETRY, Reply, decide

REFUSALS = st.one_of(st.none(), st.integers(300, 599).filter(lambda status: status != 410))


@given(st.integers(200, 299), st.integers(1, 20))
def test_any_success_is_the_end_of_it(status: int, attempts: int) -> None:
    verdict = decide(Reply(status), attempts, Random(0))
    assert (verdict.outcome, verdict.delay_s) == ("delivered", None)


@given(REFUSALS, st.integers(1, 7), st.one_of(st.none(), st.floats(0, 1e12)), st.integers())
def test_any_other_answer_is_tried_again_and_never_before_the_time_the_receiver_named(
    status: int | None, attempts: int, retry_after_s: float | None, seed: int
) -> None:
    verdict = decide(Reply(status, "no answer", retry_after_s), attempts, Random(seed))
    assert verdict.outcome == "retried"
    assert verdict.delay_s is not None
    assert min(LONGEST_S, max(RETRY.base_delay_s / 2, retry_after_s or 0)) <= verdict.delay_s <= LONGEST_S
    assert verdict.reason


@given(REFUSALS, st.integers(8, 20))
def test_after_the_last_attempt_it_is_given_up_whatever_the_receiver_says(status: int | None, attempts: int) -> None:
    verdict = decide(Reply(status, "no answer", 5.0), attempts, Random(0))
    assert (verdict.outcome, verdict.delay_s) == ("failed", None)
    assert f"attempt {attempts} of 8" in verdict.reason


def test_a_receiver_that_wants_no_more_is_not_asked_again() -> None:
    assert decide(Reply(410), 1, Random(0)).outcome == "failed"


def test_a_redirect_is_named_as_what_it_is() -> None:
    assert "redirects are not followed" in decide(Reply(302), 1, Random(0)).reason


@pytest.mark.parametrize("seed", range(20))
def test_all_attempts_together_take_from_half_an_hour_to_an_hour(seed: int) -> None:
    rng = Random(seed)
    waits = [decide(Reply(503), attempts, rng).delay_s for attempts in range(1, 8)]
    assert 1800 <= sum(wait or 0 for wait in waits) <= 3720
