"""A forecast that has to prove itself."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.forecasting import (
    CHANCE,
    PENDING,
    Forecast,
    ForecastSettings,
    ahead,
    believed,
    foreseen,
    shifted,
    updated,
)
from ragworks.policies.replaying import decoded, encoded

HORIZON_S = 60.0


def after(values, *, every_s=15.0):
    state, settings = Forecast(), ForecastSettings()
    for number, value in enumerate(values):
        state = updated(settings, state, number * every_s, value, HORIZON_S)
    return state


def test_a_steady_growth_is_foreseen_and_believed():
    state = after([10 + 0.1 * number for number in range(400)])
    assert believed(ForecastSettings(), state)
    # 0.1 in 15 s is 0.4 in a minute; the trend is damped, so a little less.
    assert ahead(ForecastSettings(), state, HORIZON_S) - state.value == pytest.approx(0.4, rel=0.2)


def test_noise_is_not_believed():
    rng = Random(0)
    assert not believed(ForecastSettings(), after([10 + rng.gauss(0, 2) for _ in range(2000)]))


def test_a_series_that_never_changes_is_not_believed_to_be_foreseen_better_than_by_itself():
    state = after([10.0] * 400)
    assert (state.error, state.naive_error, believed(ForecastSettings(), state)) == (0.0, 0.0, False)


def test_nothing_is_believed_before_its_time():
    assert not believed(ForecastSettings(), after([0.1 * number for number in range(70)]))
    assert not believed(ForecastSettings(), Forecast())


@given(st.lists(st.tuples(st.floats(-5, 500), st.floats(0, 1e6)), min_size=1, max_size=100))
def test_a_forecast_is_bounded_and_so_is_what_is_remembered(seen):
    settings, state, now = ForecastSettings(), Forecast(), 0.0
    for step, value in seen:
        now += step
        state = updated(settings, state, now, value, HORIZON_S)
        assert 0 <= ahead(settings, state, HORIZON_S) <= settings.most * state.value
        assert len(state.pending) <= PENDING + 1
        found = foreseen(settings, state, HORIZON_S)
        assert 0 <= found.low <= found.expected <= found.high
        assert found.covered is None or 0 <= found.covered <= 1


def test_a_clock_that_was_set_changes_no_forecast():
    values = [10 + 0.1 * number for number in range(100)]
    moved = updated(ForecastSettings(), shifted(after(values), -5000.0), 100 * 15.0 - 5000.0, 20.0, HORIZON_S)
    assert moved == shifted(after([*values, 20.0]), -5000.0)


def share_inside(values, *, every_s=15.0, begin=200):
    """Of all values after the first ones, how many were inside what had been said of them."""
    settings, state, inside, judged = ForecastSettings(), Forecast(), 0, 0
    for number, value in enumerate(values):
        now = number * every_s
        if number >= begin:
            due = [said for said in state.pending if said.at <= now]
            inside, judged = inside + sum(said.low <= value <= said.high for said in due), judged + len(due)
        state = updated(settings, state, now, value, HORIZON_S)
    return inside / judged, state


def chance(rng, load):
    """A count of so many on average."""
    return float(sum(rng.random() < load / 1000 for _ in range(1000)))


def walk(rng, start):
    value = start
    for _ in range(4000):
        yield (value := abs(value + rng.gauss(0, 1)))


LOADS = {
    "a walk": lambda rng: list(walk(rng, 50.0)),
    "chance about 1": lambda rng: [chance(rng, 1) for _ in range(3000)],
    "chance about 100": lambda rng: [chance(rng, 100) for _ in range(3000)],
    "heavy tails": lambda rng: [rng.paretovariate(1.5) for _ in range(4000)],
    "two regimes": lambda rng: [chance(rng, 4 if number % 1000 < 500 else 60) for number in range(4000)],
    "calm, then noise": lambda rng: [10.0 if number < 1000 else rng.uniform(0, 20) for number in range(4000)],
}


@pytest.mark.parametrize("load", LOADS)
def test_as_many_loads_as_stated_lie_in_the_interval_whatever_the_load(load):
    found, state = share_inside(LOADS[load](Random(1)))
    # Whole numbers that lie on a bound count as inside, so that few calls at once are covered more often.
    assert 0.87 <= found <= (0.99 if load == "chance about 1" else 0.93)
    assert state.covered == pytest.approx(found, abs=0.08)


def test_an_interval_closes_in_on_a_load_that_never_changes_and_opens_again():
    settings, state = ForecastSettings(), after([10.0] * 4000)
    found = foreseen(settings, state, HORIZON_S)
    assert found.high - found.low < 0.01
    assert (found.covered, found.error) == (1.0, 0.0)


def test_of_a_series_that_begins_chance_is_all_that_is_known():
    settings = ForecastSettings()
    assert foreseen(settings, Forecast(), HORIZON_S) is None
    found = foreseen(settings, after([100.0]), HORIZON_S)
    assert (found.low, found.expected, found.high) == (100 - 10 * CHANCE, 100.0, 100 + 10 * CHANCE)
    assert (found.covered, found.error, found.naive_error) == (None, None, None)


def test_a_second_value_of_the_same_moment_changes_nothing():
    settings, state = ForecastSettings(), after([4.0, 5.0])
    assert updated(settings, state, state.at, 9.0, HORIZON_S) == state


def test_what_is_remembered_comes_back_from_what_an_event_records():
    state = after([10 + 0.1 * number for number in range(100)])
    assert state.pending
    assert decoded(Forecast, encoded(state)) == state
