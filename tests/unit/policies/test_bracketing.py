"""Intervals of estimates: always around them, as wide as history was bad, and right as often as they say."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.bracketing import LEVEL, PRIOR, SLACK_S, bracket, coverage

seconds = st.floats(0, 1e5)
pairs = st.lists(st.tuples(seconds, seconds), max_size=60)
levels = st.floats(0.05, 0.99)


def synthetic(jobs: int, seed: int = 7) -> list[tuple[float, float]]:
    rng = Random(seed)
    predicted = [rng.uniform(1, 100) for _ in range(jobs)]
    return [(one, one * rng.lognormvariate(0.2, 0.5)) for one in predicted]


@given(seconds, pairs, levels)
def test_an_interval_holds_the_estimate_and_is_never_negative(
    expected: float, seen: list[tuple[float, float]], level: float
) -> None:
    found = bracket(expected, seen, level)
    assert 0 <= found.low <= expected <= found.high


@given(seconds, pairs, levels, levels)
def test_a_higher_level_never_gives_a_narrower_interval(
    expected: float, seen: list[tuple[float, float]], one: float, other: float
) -> None:
    narrow, wide = bracket(expected, seen, min(one, other)), bracket(expected, seen, max(one, other))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@given(seconds, st.lists(st.floats(1, 10), min_size=1, max_size=40), st.floats(1, 10))
def test_a_worse_history_never_gives_a_narrower_interval(expected: float, off: list[float], worse: float) -> None:
    better = bracket(expected, [(10.0, 10.0 * one) for one in off])
    assert bracket(expected, [(10.0, 10.0 * one * worse) for one in off]).high >= better.high - 1e-6


@pytest.mark.parametrize("seen", [[], [(10.0, 10.0)], [(10.0, 12.0)] * 8])
def test_with_too_few_ended_jobs_the_prior_decides(seen: list[tuple[float, float]]) -> None:
    found = bracket(10.0, seen)
    assert (found.low, found.high) == pytest.approx((10.1 / PRIOR - SLACK_S, 10.1 * PRIOR - SLACK_S))


def test_one_job_that_was_farther_off_than_the_prior_widens_it() -> None:
    assert bracket(10.0, [(10.0, 100.0)]).high == pytest.approx(100.0)


def test_nine_jobs_are_enough_for_their_own_interval() -> None:
    assert bracket(10.0, [(10.0, 10.0)] * 9).high == pytest.approx(10.0)


def test_the_share_of_jobs_within_their_interval_is_near_the_level() -> None:
    """Of 2,000 jobs, each judged by those before it: two points are over two standard deviations of the mean."""
    found = coverage(synthetic(4000), 2000)
    assert found == pytest.approx(LEVEL, abs=0.02)


def test_a_job_is_judged_by_those_before_it_only() -> None:
    usual = [(10.0, 10.0)] * 20
    assert coverage([(10.0, 90.0), *usual], 100) == pytest.approx(20 / 21)
    assert coverage([(10.0, 90.0), *usual], 1) == 0.0
    assert coverage([], 100) is None
