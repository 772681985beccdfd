"""Requests as recorded, and drawn from recorded rates."""

from __future__ import annotations

import numpy as np
import pytest

from ragworks.errors import InvalidInput
from ragworks.simulator.demand import drawn, in_service, recorded
from ragworks.simulator.traces import Rates, Requests

TOKENS = Requests(np.array([0.0, 1.0]), np.array([1000.0, 3000.0]), np.array([100.0, 200.0]))
RATES = Rates(np.arange(0.0, 7200.0, 600.0), np.array([10.0] * 6 + [20.0] * 6))


def test_recorded_requests_come_as_they_came():
    trace = Requests(np.array([100.0, 150.0, 400.0]), np.array([0.0, 1000.0, 0.0]), np.array([0.0, 10.0, 100.0]))
    demand = recorded(trace)
    assert demand.t.tolist() == [0, 50, 300]
    assert demand.work == pytest.approx([0.05, 0.45, 2.05])
    assert demand.length_s == 300
    assert recorded(trace, (120.0, 420.0)).t.tolist() == [30, 280]


def test_drawn_requests_keep_three_replicas_busy_at_the_rates_of_the_trace():
    demand = drawn(RATES, TOKENS, slots=4, cv=1.0, seed=1)
    # 12 busy slots for 7200 s at 3.45 s a request: about 25,000, whose sum is off by well under 2 %.
    assert demand.work.sum() / demand.length_s == pytest.approx(12, rel=0.02)
    first, second = (demand.t < 3300).sum(), (demand.t >= 3900).sum()
    assert second / first == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_times_between_drawn_requests_vary_as_asked(cv):
    even = Rates(np.array([0.0, 3600.0]), np.array([5.0, 5.0]))
    gaps = np.diff(drawn(even, TOKENS, slots=64, cv=cv, seed=3).t)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(cv, rel=0.05)


def test_a_seed_draws_the_same_requests_and_another_seed_others():
    one, again, other = (drawn(RATES, TOKENS, slots=4, cv=1.5, seed=seed, window=(1800, 5400)) for seed in (1, 1, 2))
    assert np.array_equal(one.t, again.t)
    assert not np.array_equal(one.t[:100], other.t[:100])
    assert one.length_s == 3600


@pytest.mark.parametrize("window", [(0.0, 9000.0), (-5.0, 600.0), (7200.0, 7300.0)])
def test_a_window_outside_of_the_rates_is_refused(window):
    with pytest.raises(InvalidInput, match=r"lies outside of the trace, which has 0 to 6600 s"):
        drawn(RATES, TOKENS, slots=4, cv=1.5, seed=0, window=window)


def test_what_cannot_be_simulated_is_refused_with_the_reason():
    with pytest.raises(InvalidInput, match="holds no request"):
        recorded(TOKENS, (50.0, 500.0))
    with pytest.raises(InvalidInput, match="found 2 requests in 1 s; needs some, and more than 120 s"):
        recorded(TOKENS)
    with pytest.raises(InvalidInput, match="all zero"):
        drawn(Rates(RATES.t, RATES.per_s * 0), TOKENS, slots=4, cv=1.5, seed=0)


def test_requests_in_service_are_counted_at_every_instant():
    trace = Requests(np.array([0.0, 1.0, 200.0]), np.zeros(3), np.array([100.0, 100.0, 0.0]))
    at, there = in_service(recorded(trace))
    assert dict(zip(at.round(2).tolist(), there.tolist(), strict=True)) == {
        0.0: 1, 1.0: 2, 2.05: 1, 3.05: 0, 200.0: 1, 200.05: 0
    }  # fmt: skip
