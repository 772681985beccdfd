"""Sliding maximum, mean and decaying average."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragworks.policies.windows import PARTS, decayed, highest, keep, keep_highest, mean, shifted

SPAN_S = 60.0

observations = st.lists(st.tuples(st.floats(0, 90), st.floats(0, 1000)), min_size=1, max_size=200)


@given(observations)
def test_the_highest_is_never_below_that_of_the_span_nor_above_that_of_a_little_more(seen):
    """What comes too close together is merged, so that a maximum may live two parts of the span longer."""
    window, now, all_seen = (), 0.0, []
    for step, value in seen:
        now += step
        all_seen.append((now, value))
        window = keep_highest(window, now, value, SPAN_S)
        exact = max(value for at, value in all_seen if now - SPAN_S < at)
        longer = max(value for at, value in all_seen if now - SPAN_S * (1 + 2 / PARTS) <= at)
        assert exact <= highest(window, now, SPAN_S) <= longer


@given(st.lists(st.floats(0.001, 20), min_size=1, max_size=400), st.sampled_from([keep, keep_highest]))
def test_a_window_is_bounded_whatever_the_rate(steps, kept):
    window, now = (), 0.0
    for number, step in enumerate(steps):
        now += step
        window = kept(window, now, -float(number), SPAN_S)
        assert len(window) <= 2 * PARTS + 2


@example([(0.0, 1.5), (5e-324, 1.5)])
@given(observations)
def test_the_mean_lies_between_the_extremes(seen):
    window, now = (), 0.0
    for step, value in seen:
        now += step
        window = keep(window, now, value, SPAN_S)
    found = mean(window, now, SPAN_S)
    assert min(value for _, value in seen) - 1e-6 <= found <= max(value for _, value in seen) + 1e-6


def test_the_mean_weighs_a_value_by_the_time_that_it_stands_for():
    window = ((10.0, 1.0), (20.0, 1.0), (50.0, 5.0))
    assert mean(window, 50.0, SPAN_S) == pytest.approx((10 * 1 + 10 * 1 + 30 * 5) / 50)


def test_nothing_seen_is_not_zero():
    assert (highest((), 5.0, SPAN_S), mean((), 5.0, SPAN_S), decayed(None, None, 1.0, 10.0)) == (None, None, None)
    old = ((0.0, 3.0),)
    assert (highest(old, 60.0, SPAN_S), mean(old, 60.0, SPAN_S)) == (None, None)


def test_what_the_future_promised_is_not_seen_before_its_time():
    """The clock was set back after the value was kept."""
    assert highest(((100.0, 9.0),), 50.0, SPAN_S) is None
    assert highest(shifted(((100.0, 9.0),), -60.0), 50.0, SPAN_S) == 9.0


def test_an_average_forgets_by_time_and_not_by_count():
    once = decayed(1.0, 0.0, 20.0, 10.0)
    twice = decayed(decayed(1.0, 0.0, 10.0, 10.0), 0.0, 10.0, 10.0)
    assert once == pytest.approx(twice) == pytest.approx(exp(-2))
    assert decayed(1.0, None, 1000.0, 10.0) == 1.0
    assert decayed(None, 4.0, 0.0, 10.0) == 4.0
    assert decayed(1.0, 0.0, -5.0, 10.0) == 1.0
