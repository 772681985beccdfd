"""What the settings of a service make of the rule that scales it."""

from __future__ import annotations

from ragworks.policies.scaling import ScaleSpec
from ragworks.settings_scaling import STARTUP_S, ScalingSettings, spec


def test_the_defaults_are_the_rule_as_it_was_measured() -> None:
    made = spec(ScalingSettings(), (1, 10))
    assert made == ScaleSpec(startup_s=STARTUP_S)


def test_who_decides_more_often_averages_over_less_and_who_calms_sooner_waits_less() -> None:
    made = spec(ScalingSettings(monitoring_interval=2.0, stable_duration=10.0), (1, 10))
    assert (made.target.window_s, made.target.calm_s) == (4.0, 20.0)
