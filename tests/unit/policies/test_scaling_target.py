"""Replicas for a load: sizes, growth, bursts, calm, and what a forecast may add."""

from __future__ import annotations

import re
from dataclasses import replace
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.forecasting import Forecast
from ragworks.policies.scaling import Action, Load, ScaleSpec, ScaleState, decide
from ragworks.policies.scaling_target import replicas
from scaled import IDLE, acts, busy, constant, every, follow

SPEC = ScaleSpec(max_instances=100, cooldown=0.0)


@given(st.floats(0, 1e5), st.integers(1, 64))
def test_slots_are_enough_for_the_load_at_its_utilisation_and_for_its_chance(load, slots):
    found = replicas(SPEC, load, slots) * slots
    wanted = max(load / 0.9, load + 2.25 * sqrt(load))
    assert wanted - 1e-6 * slots <= found < wanted + slots


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.integers(1, 16), st.sampled_from(["target", "predictive"]))
def test_a_higher_load_never_gets_fewer_replicas(one, other, slots, policy):
    low, high = sorted((one, other))
    spec = replace(SPEC, policy=policy)
    before = follow(spec, lambda now, instances: busy(5, instances, slots=slots), every(30, 1200))[-1]
    instances = before.target_instances

    def after(load):
        return decide(spec, busy(load, instances, slots=slots), before.state, 1230.0).target_instances

    assert after(low) <= after(high)


def test_calls_that_are_shorter_than_a_wait_that_nobody_minds_need_less_headroom():
    found = [replicas(SPEC, 4.0, 1, service_s) for service_s in (0.01, 0.1, 1.0, 100.0, None)]
    assert found == [5, 6, 9, 9, 9]


def test_a_step_of_the_load_is_answered_at_once_and_in_proportion():
    """One instance more per cooldown, whatever the load, is how the first sketch fell behind."""

    def measured(now, instances):
        return busy(2 if now < 600 else 16, instances, slots=4)

    found = follow(replace(SPEC, monitoring_interval=15.0), measured, every(15, 900), instances=2)
    targets = [one.target_instances for one in found]
    assert targets[600 // 15 - 1] == 2
    # 16 calls, of which some waited in that interval, at once; the headroom of the load as it is known by then.
    assert targets[600 // 15] >= 4
    assert targets[660 // 15] == replicas(SPEC, 16, 4) == 7


def test_a_burst_beyond_all_slots_is_not_averaged_away():
    quiet = follow(SPEC, lambda now, instances: busy(1, instances, slots=4), every(5, 600), instances=1)[-1]
    burst = busy(12, 1, slots=4, every_s=5.0)
    decision = decide(SPEC, burst, quiet.state, 605.0)
    assert decision.target_instances == 4  # 12 calls, and a little for serving who waited
    assert "a burst of" in decision.reason
    assert (
        decide(replace(SPEC, target=replace(SPEC.target, panic=100.0)), burst, quiet.state, 605.0).target_instances < 4
    )


def test_replicas_that_still_start_are_not_started_again():
    """What waits for them grows, and asks for no more of them than the load needs."""

    def measured(now, instances):
        waiting = 12.0 * now / 3.0
        return Load(
            instances,
            1,
            4,
            concurrency=4.0 + waiting,
            queue_size=int(waiting),
            arrived=round(12 / 3.0 * 15),
            completed=20,
            service_s=3.0,
        )

    spec = replace(SPEC, monitoring_interval=15.0, startup_s=120.0)
    most = max(one.target_instances for one in follow(spec, measured, every(15, 120), instances=1))
    # 480 calls wait at the end; a slot each would be 121 replicas.
    assert most <= replicas(spec, 12 + 480 * 3.0 / 120.0, 4)


def test_one_decision_multiplies_by_a_bounded_factor():
    found = follow(SPEC, lambda now, instances: busy(5000, instances), [0.0, 30.0, 60.0, 90.0], instances=1)
    assert [one.target_instances for one in found] == [5, 15, 45, 100]


def test_scaling_down_waits_for_a_calm_and_goes_by_its_highest_need():
    def measured(now, instances):
        return busy(20 if now < 300 else 9 if now < 600 else 2, instances)

    ticks = every(30, 2400)
    found = follow(SPEC, measured, ticks, instances=35)
    seen = [(now, one.target_instances) for now, one in zip(ticks, found, strict=True) if one.action is not Action.NONE]
    assert [target for _, target in seen] == sorted((target for _, target in seen), reverse=True)
    first, last = seen[0], seen[-1]
    assert first == (600, replicas(SPEC, 20, 1))  # watched for ten minutes, whose highest need was of 20
    assert last[1] == replicas(SPEC, 2, 1)
    assert last[0] >= 600 + 600


def test_scaling_down_halves_at_most():
    found = acts(follow(SPEC, constant(IDLE), every(30, 3600), instances=40))
    assert [one.target_instances for one in found] == [20, 10, 5, 2, 1]


def test_the_cooldown_holds_back_scaling_down_and_never_scaling_up():
    spec = replace(SPEC, cooldown=3600.0)
    state = follow(spec, constant(IDLE), every(30, 1200), instances=1)[-1].state
    state = replace(state, acted_at=1200.0)
    assert decide(spec, busy(30, 2), state, 1230.0).action is Action.SCALE_UP
    held = decide(spec, replace(IDLE, instances=9, ready=9), state, 1230.0)
    assert (held.action, "the cooldown lasts 3570 s more" in held.reason) == (Action.NONE, True)


def test_memory_that_never_falls_blocks_nothing():
    """Python gives little memory back; as a condition it would keep every replica for ever."""
    full = constant(replace(IDLE, memory_percent=99.0, cpu_percent=99.0))
    assert follow(SPEC, full, every(30, 7200), instances=9)[-1].target_instances == 1


def test_nothing_ready_yet_counts_what_waits():
    """A cold start: nobody has ever been served, so each who waits wants a slot."""
    decision = decide(SPEC, Load(1, 0, 4, concurrency=12.0, queue_size=12, arrived=12, completed=0), ScaleState(), 0.0)
    assert decision.target_instances == 1 + 4


def test_a_backlog_of_short_work_needs_few_slots():
    """A hundred calls of 0.1 s that wait are ten slot-seconds: nothing for replicas that take 30 s to start."""
    seen = Load(1, 1, 1, concurrency=101.0, queue_size=100, arrived=240, completed=240, service_s=0.1)
    assert decide(SPEC, seen, ScaleState(seen_at=0.0, since=0.0, service_s=0.1), 30.0).target_instances == 3


def trusted(value: float, trend: float, *, error: float = 0.5) -> Forecast:
    return Forecast(at=3000.0, since=0.0, value=value, trend=trend, error=error, naive_error=1.0)


@pytest.mark.parametrize(("trend", "error"), [(-1.0, 0.5), (0.5, 0.99), (0.5, 3.0)])
def test_a_forecast_never_lowers_and_is_not_believed_until_it_is_better_than_none(trend, error):
    spec = replace(SPEC, policy="predictive")
    state = replace(
        follow(SPEC, lambda now, n: busy(10, n), every(30, 3000), 18)[-1].state,
        forecast=trusted(10, trend, error=error),
    )
    decision = decide(spec, busy(10, 18), state, 3030.0)
    assert decision.target_instances == decide(SPEC, busy(10, 18), state, 3030.0).target_instances


def test_a_forecast_that_proved_itself_raises_within_its_bound():
    spec = replace(SPEC, policy="predictive")
    state = follow(SPEC, lambda now, n: busy(10, n), every(30, 3000), 18)[-1].state
    raised = decide(spec, busy(10, 18), replace(state, forecast=trusted(10, 0.5)), 3030.0)
    assert raised.target_instances > 18
    assert re.search(r"1\d\.\d expected in 30 s \(\d+\.\d to \d+\.\d in 90 % of cases\)", raised.reason)
    wild = decide(spec, busy(10, 18), replace(state, forecast=trusted(10, 1e9)), 3030.0)
    assert wild.target_instances == replicas(SPEC, 10 * spec.predictive.most, 1)


def test_a_service_time_that_was_measured_badly_at_first_is_forgotten_as_fast_as_it_was_learnt():
    """Of two looks in two seconds the first may be half of it, which then stood for ten minutes: a step that followed
    was answered by half of what it needed."""
    spec = replace(SPEC, monitoring_interval=2.0)
    measured = {0.0: 0.05}
    found = follow(
        spec, lambda now, n: busy(1, n, service_s=measured.get(now, 0.25), every_s=2.0), every(2, 20), instances=3
    )
    assert found[-1].state.service_s == pytest.approx(0.25, rel=0.15)
    later = follow(spec, lambda now, n: busy(1, n, service_s=0.25, every_s=2.0), every(2, 3600), instances=3)[-1]
    once = decide(spec, busy(1, 3, service_s=2.5, every_s=2.0), later.state, 3602.0)
    assert once.state.service_s == pytest.approx(0.25, rel=0.05)


def test_a_burst_that_comes_again_and_again_keeps_what_it_needs():
    """15 calls in every other interval: seven replicas of two slots are too few for them, and eight were one too many
    for their mean; so one came and went every ten minutes."""

    def measured(now, instances):
        return busy(15 if now / 30 % 2 else 0, instances, slots=2)

    found = follow(SPEC, measured, every(30, 3 * 3600), instances=1)
    assert found[-1].target_instances == 8
    assert not acts(found[120:])
