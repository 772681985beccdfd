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


def test_who_decides_more_often_averages_over_less_and_who_calms_sooner_waits_less() -> None:
    made = spec(ScalingSettings(monitoring_interval=2.0, stable_duration=10.0), (1, 10))
    assert (made.target.window_s, made.target.calm_s) == (4.0, 20.0)


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
