"""When what ended is started again: pure, so properties."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.restarting import (
    LOOP_JITTER,
    RestartDecision,
    RestartSettings,
    RestartState,
    decide,
    ended,
    started,
)

SETTINGS = RestartSettings()
RNG = Random(0)


def ends(times: int, *, every_s: float = 1.0, others_up: int = 1) -> tuple[RestartState, float]:
    """The state after so many ends, none of them after a stable time, and when the last was."""
    state = RestartState(others_up=others_up)
    for n in range(times):
        state = ended(SETTINGS, state, n * every_s, "out of memory")
    return state, (times - 1) * every_s


def after(times: int, **how: float) -> RestartDecision:
    return decide(SETTINGS, *ends(times, **how), RNG)  # type: ignore[arg-type]


def test_with_nothing_known_it_is_started_now() -> None:
    assert decide(SETTINGS, RestartState(), 5.0, RNG) == RestartDecision(0.0, False, "it has not been started yet")


def test_one_end_is_followed_by_a_start_at_once() -> None:
    decision = after(1)
    assert (decision.delay_s, decision.crash_loop) == (0.0, False)
    assert decision.reason.endswith("last: out of memory")


def test_what_is_up_or_was_asked_to_go_is_left_alone() -> None:
    state, now = ends(3)
    assert decide(SETTINGS, started(state, now), now, RNG).delay_s is None
    assert decide(SETTINGS, replace(state, wanted=False), now, RNG).delay_s is None


def test_more_ends_than_the_budget_are_a_crash_loop_that_is_named_with_count_and_reason() -> None:
    assert not after(SETTINGS.budget).crash_loop
    decision = after(SETTINGS.budget + 1)
    assert decision.crash_loop
    assert "crash looping: 6 ends" in decision.reason
    assert "out of memory" in decision.reason
    assert decision.delay_s is not None
    assert decision.delay_s >= SETTINGS.crash_loop_delay_s


def test_a_crash_loop_stays_one_however_slowly_it_goes_until_it_was_stable() -> None:
    """Slowed down, its ends lie further apart than the window is wide; it was forgotten then, and ran fast again."""
    state, now = ends(50, every_s=SETTINGS.window_s)
    assert decide(SETTINGS, state, now, RNG).crash_loop
    state = started(state, now)
    early = ended(SETTINGS, state, now + SETTINGS.stable_s - 1, "again")
    assert decide(SETTINGS, early, early.ends[-1], RNG).crash_loop
    late = ended(SETTINGS, state, now + SETTINGS.stable_s, "again")
    assert decide(SETTINGS, late, late.ends[-1], RNG).delay_s == 0.0


def test_one_that_is_stable_each_time_and_still_ends_too_often_is_a_crash_loop_too() -> None:
    """A leak that fills the memory in a minute: every start looks like a success."""
    state, now = RestartState(), 0.0
    for _ in range(SETTINGS.budget + 1):
        state = started(state, now)
        now += SETTINGS.stable_s
        state = ended(SETTINGS, state, now, "out of memory")
    decision = decide(SETTINGS, state, now, RNG)
    assert state.failures == 1
    assert decision.crash_loop
    assert "more than 5 ends in 600 s" in decision.reason


@pytest.mark.parametrize("times", [2, 6, 100])
def test_with_no_other_one_up_nobody_waits_long(times: int) -> None:
    """Everything dead: the longest pause is what every call of the service waits."""
    delay = after(times, others_up=0).delay_s
    assert delay is not None
    assert delay <= SETTINGS.lonely_delay_s * (1 + LOOP_JITTER)


@given(
    st.lists(st.floats(0, 10_000), max_size=30).map(sorted),
    st.integers(0, 3),
    st.integers(0, 2**32),
    st.builds(
        RestartSettings,
        budget=st.integers(0, 8),
        window_s=st.floats(1, 1000),
        stable_s=st.floats(1, 100),
        crash_loop_delay_s=st.floats(30, 100),
    ),
)
def test_it_is_never_given_up_and_the_pause_is_bounded(times, others_up, seed, settings) -> None:
    state, now = RestartState(others_up=others_up), 0.0
    for at in times:
        state, now = ended(settings, state, at, "why"), at
    decision = decide(settings, state, now, Random(seed))
    assert decision.delay_s is not None
    longest = max(settings.backoff.max_delay_s, settings.crash_loop_delay_s * (1 + LOOP_JITTER))
    assert 0 <= decision.delay_s <= longest
    assert decision.crash_loop == (len(times) > settings.budget)
    assert len(state.ends) <= settings.budget + 1
    assert decision.reason


@given(st.integers(2, 5), st.integers(0, 2**32))
def test_the_pause_doubles_within_its_jitter(times: int, seed: int) -> None:
    decision = decide(SETTINGS, *ends(times), Random(seed))
    ceiling = SETTINGS.backoff.base_delay_s * 2.0 ** (times - 2)
    assert decision.delay_s is not None
    assert ceiling / 2 <= decision.delay_s <= ceiling


def test_replicas_that_end_together_do_not_start_together() -> None:
    for times in (3, 9):
        state, now = ends(times)
        assert len({decide(SETTINGS, state, now, Random(seed)).delay_s for seed in range(20)}) == 20
