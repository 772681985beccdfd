"""What the settings of a service make of the rule that scales it."""

from __future__ import annotations

import pytest

from ragworks.parts import workers_by_cores
from ragworks.policies.scaling import ScaleSpec
from ragworks.settings import ReplicaSettings, load
from ragworks.settings_scaling import STARTUP_S, ScalingSettings, spec


def test_the_defaults_are_the_rule_as_it_was_measured() -> None:
    made = spec(ScalingSettings(), (1, 10))
    assert made == ScaleSpec(startup_s=STARTUP_S)


@pytest.mark.parametrize(
    ("interval", "stable", "window"), [(30.0, 300.0, 60.0), (2.0, 300.0, 60.0), (2.0, 10.0, 10.0), (60.0, 300.0, 120.0)]
)
def test_the_load_is_averaged_over_no_more_than_it_must_be_low_for(
    interval: float, stable: float, window: float
) -> None:
    made = spec(ScalingSettings(monitoring_interval=interval, stable_duration=stable), (1, 10))
    assert (made.target.window_s, made.target.calm_s) == (window, 2 * stable)


@pytest.mark.parametrize(
    ("cores", "bounds", "workers"),
    [(1, {}, 1), (4, {}, 3), (64, {}, 63), (64, {"max_instances": 4}, 4), (2, {"min_instances": 3}, 3)],
)
def test_workers_start_as_the_cores_say_within_bounds_that_somebody_set(
    monkeypatch: pytest.MonkeyPatch, cores: int, bounds: dict[str, int], workers: int
) -> None:
    monkeypatch.setattr("ragworks.parts.available_cores", lambda: cores)
    settings = load(None, {}, document_processor={"replicas": bounds})  # min_instances was refused, whatever it was
    assert workers_by_cores(settings.document_processor.replicas) == workers
    assert workers_by_cores(ReplicaSettings(**bounds)) == workers
