"""The rule of thresholds, to the second."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from ragworks.errors import InvalidSettings
from ragworks.policies.scaling import Action, ScaleSpec, ScaleState, decide
from ragworks.policies.scaling_settings import changed, check
from scaled import IDLE, acts, constant, every, follow

SPEC = ScaleSpec(policy="threshold")
CALM = replace(IDLE, instances=5, ready=5)
MIDDLING = replace(CALM, cpu_percent=50.0, completed=10, response_s=1.0, error_percent=0.0)


def test_a_hundred_thousand_idle_ticks_scale_down_exactly_when_they_should():
    """A window trimmed to 'not older than D' that then has to be 'at least D old' never fires: 0 of 100,000 ticks."""
    rng, now, ticks = Random(0), 0.0, []
    for _ in range(100_000):
        ticks.append(now)
        now += 30.0 + rng.uniform(-10.0, 10.0)
    spec = replace(SPEC, max_instances=10**6)
    found = follow(spec, constant(IDLE), ticks, instances=10**6)
    expected, begin = [], ticks[0]
    for now in ticks:
        fires = now - begin >= 300.0
        expected.append(fires)
        begin = now if fires else begin
    assert [one.action is Action.SCALE_DOWN for one in found] == expected
    # Every 300 s at best, and 40 s later at worst.
    assert len(ticks) * 30 / 340 <= sum(expected) <= len(ticks) * 30 / 300


@pytest.mark.parametrize("interval_s", [0.5, 7.0, 30.0, 60.0, 100.0])
def test_the_stable_duration_is_the_same_whatever_the_interval(interval_s):
    spec = replace(SPEC, monitoring_interval=interval_s)
    ticks = every(interval_s, 900)
    found = follow(spec, constant(IDLE), ticks, instances=5)
    first = next(now for now, one in zip(ticks, found, strict=True) if one.action is Action.SCALE_DOWN)
    assert first - interval_s < 300 <= first


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cpu_percent", 70.1, "cpu_threshold 70"),
        ("memory_percent", 80.1, "memory_threshold 80"),
        ("response_s", 2.1, "response_time_threshold 2"),
        ("queue_size", 101, "queue_size_threshold 100"),
        ("error_percent", 5.1, "error_rate_threshold 5"),
    ],
)
def test_any_limit_that_is_exceeded_adds_one(name, value, said):
    decision = decide(SPEC, replace(MIDDLING, **{name: value}), ScaleState(), 0.0)
    assert (decision.action, decision.target_instances) == (Action.SCALE_UP, 6)
    assert said in decision.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu_percent", 70.0), ("memory_percent", 80.0), ("response_s", 2.0), ("queue_size", 100), ("error_percent", 5.0)],
)
def test_a_limit_that_is_met_is_not_exceeded(name, value):
    assert decide(SPEC, replace(MIDDLING, **{name: value}), ScaleState(), 0.0).action is Action.NONE


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu_percent", 30.0), ("memory_percent", 40.0), ("response_s", 0.5), ("queue_size", 10), ("cpu_percent", None)],
)
def test_one_measure_that_is_not_low_holds_all_replicas(name, value):
    seen = constant(replace(CALM, **{"completed": 10, "response_s": 0.1, name: value}))
    assert not acts(follow(SPEC, seen, every(30, 7200), instances=5))


def test_no_requests_are_no_slow_requests_but_an_unknown_response_time_is_not_low():
    assert acts(follow(SPEC, constant(replace(CALM, completed=0)), every(30, 600), instances=5))
    assert not acts(follow(SPEC, constant(replace(CALM, completed=None)), every(30, 600), instances=5))
    assert not acts(follow(SPEC, constant(replace(CALM, completed=3)), every(30, 600), instances=5))


def test_a_moment_that_is_not_low_begins_the_window_anew():
    def measured(now, instances):
        return replace(MIDDLING if now == 270 else CALM, instances=instances, ready=instances)

    found = follow(SPEC, measured, every(30, 900), instances=5)
    assert [number * 30 for number, one in enumerate(found) if one.action is not Action.NONE] == [600, 900]


def test_the_window_goes_on_during_the_cooldown():
    """Calm from 0 s; an action long ago whose cooldown ends at 450 s: it fires then and not 300 s later."""
    state = ScaleState(acted_at=-150.0)
    found = follow(replace(SPEC, cooldown=600.0), constant(CALM), every(30, 600), instances=5, state=state)
    assert [number * 30 for number, one in enumerate(found) if one.action is not Action.NONE] == [450]
    assert "the cooldown lasts 150 s more" in found[10].reason


def test_the_cooldown_separates_two_steps_up():
    hot = replace(CALM, cpu_percent=95.0)
    found = follow(SPEC, constant(hot), every(30, 900), instances=1)
    assert [number * 30 for number, one in enumerate(found) if one.action is not Action.NONE] == [0, 300, 600, 900]


def test_a_hole_in_the_measurements_is_no_calm():
    def measured(now, instances):
        return None if 60 <= now < 240 else replace(CALM, instances=instances, ready=instances)

    found = follow(SPEC, measured, every(30, 900), instances=5)
    assert next(number * 30 for number, one in enumerate(found) if one.action is not Action.NONE) == 540


def test_single_values_of_the_tables_are_overridden():
    spec = changed(SPEC, "threshold.scale_up.cpu_threshold", "40")
    assert decide(spec, MIDDLING, ScaleState(), 0.0).action is Action.SCALE_UP
    assert spec.threshold.scale_up == replace(SPEC.threshold.scale_up, cpu_threshold=40.0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("threshold.scale_down.cpu_threshold", "70", "below 70 .threshold.scale_up.cpu_threshold.; found 70"),
        ("threshold.scale_up.queue_size_threshold", "3", "scale_down.queue_size_threshold must be below 3"),
        ("threshold.stable_duration", "-1", "threshold.stable_duration must be 0 or more; found -1"),
        ("cooldown", "-5", "cooldown must be 0 or more; found -5"),
        ("cooldown", "nan", "cooldown must be 0 or more; found nan"),
        ("min_instances", "11", "max_instances must be 11 .min_instances. or more; found 10"),
        ("min_instances", "0", "min_instances must be 1 or more; found 0"),
        ("monitoring_interval", "0", "monitoring_interval must be above 0; found 0"),
        ("target.utilisation", "1.1", "target.utilisation must be above 0, 1 at most; found 1.1"),
        ("target.growth", "0.5", "target.growth must be 1 or more"),
        ("predictive.proven_s", "0", "predictive.proven_s must be above 0"),
    ],
)
def test_settings_that_contradict_themselves_are_refused_with_what_is_allowed(name, value, said):
    with pytest.raises(InvalidSettings, match=said):
        check(changed(SPEC, name, value))


def test_an_unknown_policy_or_setting_is_refused_with_the_known_ones():
    with pytest.raises(InvalidSettings, match="one of threshold, target, predictive; found magic"):
        check(replace(SPEC, policy="magic"))
    with pytest.raises(InvalidSettings, match=r"did you mean 'target.utilisation'"):
        changed(SPEC, "target.utilization", "0.5")
    with pytest.raises(InvalidSettings, match=r"max_instances must be a whole number; found '2.5'"):
        changed(SPEC, "max_instances", "2.5")
    with pytest.raises(InvalidSettings, match=r"target.growth must be a number; found 'much'"):
        changed(SPEC, "target.growth", "much")
    assert changed(SPEC, "max_fed", "3").most == 3
    with pytest.raises(InvalidSettings, match="max_fed must be 1 or more"):
        check(replace(SPEC, max_fed=0))
