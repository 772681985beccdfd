"""A forecast that has to prove itself."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.forecasting import PENDING, Forecast, ForecastSettings, ahead, believed, shifted, updated

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


def test_a_clock_that_was_set_changes_no_forecast():
    values = [10 + 0.1 * number for number in range(100)]
    moved = updated(ForecastSettings(), shifted(after(values), -5000.0), 100 * 15.0 - 5000.0, 20.0, HORIZON_S)
    assert moved == shifted(after([*values, 20.0]), -5000.0)
