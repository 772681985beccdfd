"""What any scaling policy keeps, whatever it thinks of a load."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworks.policies.replaying import encoded, replay
from ragworks.policies.scaling import POLICIES, Action, Load, ScaleSpec, ScaleState, decide
from ragworks.policies.scaling_target import replicas
from scaled import IDLE, acts, busy, constant, every, follow

every_policy = pytest.mark.parametrize("policy", POLICIES)

measures = st.none() | st.floats(0, 1e6) | st.just(float("nan")) | st.just(float("inf"))
counts = st.none() | st.integers(0, 10**6)
loads = st.none() | st.builds(
    Load,
    instances=st.integers(0, 40),
    ready=st.integers(0, 40),
    slots=st.integers(1, 64),
    concurrency=measures,
    queue_size=counts,
    arrived=counts,
    completed=counts,
    service_s=measures,
    response_s=measures,
    error_percent=measures,
    cpu_percent=measures,
    memory_percent=measures,
)
specs = st.builds(
    lambda low, more, fed, cooldown: ScaleSpec(
        min_instances=low, max_instances=low + more, max_fed=fed, cooldown=cooldown
    ),
    st.integers(1, 5),
    st.integers(0, 20),
    st.none() | st.integers(1, 8),
    st.floats(0, 600),
)
# Steps of a clock that ticks, stands, jumps and is set back.
steps = st.lists(st.one_of(st.floats(0, 60), st.floats(-1e5, 1e6)), min_size=1, max_size=30)


@every_policy
@given(spec=specs, seen=st.lists(loads, min_size=1, max_size=30), clock=steps)
def test_whatever_is_measured_and_whatever_the_clock_does_a_target_lies_within_bounds(policy, spec, seen, clock):
    spec, state, now = replace(spec, policy=policy), ScaleState(), 0.0
    for load, step in zip(seen, clock, strict=False):
        now += step
        decision = decide(spec, load, state, now)
        state = decision.state
        assert spec.min_instances <= decision.target_instances <= spec.most
        assert decision.reason
        if load is None:
            continue
        assert (decision.action is Action.SCALE_UP) == (decision.target_instances > load.instances)
        assert (decision.action is Action.SCALE_DOWN) == (decision.target_instances < load.instances)


@every_policy
@given(spec=specs, seen=st.lists(loads, min_size=1, max_size=10), clock=steps)
def test_a_decision_can_be_written_down_and_is_the_same_when_asked_again(policy, spec, seen, clock):
    spec, state, now = replace(spec, policy=policy), ScaleState(), 0.0
    for load, step in zip(seen, clock, strict=False):
        now += step
        decision = decide(spec, load, state, now)
        inputs = {
            name: encoded(value) for name, value in {"spec": spec, "seen": load, "state": state, "now": now}.items()
        }
        written = json.loads(json.dumps({"inputs": inputs, "decision": encoded(decision)}, allow_nan=False))
        assert replay("scaling.decide", written["inputs"]) == written["decision"]
        state = decision.state


@every_policy
def test_without_data_nothing_is_done_and_nothing_is_forgotten(policy):
    """A metric source that dies must not look like an idle service."""
    spec = ScaleSpec(policy=policy, max_instances=20)
    state = follow(spec, lambda now, instances: busy(5, instances), every(30, 300))[-1].state
    for now in every(30, 3000, 330):
        decision = decide(spec, None, state, now)
        assert (decision.action, decision.state, decision.seen) == (Action.NONE, state, None)
        assert decision.reason.startswith("no data")


@every_policy
def test_a_load_of_which_nothing_is_known_does_nothing(policy):
    unknown = Load(7, 7)
    assert not acts(follow(ScaleSpec(policy=policy), constant(unknown), every(30, 3600), instances=7))


@every_policy
@pytest.mark.parametrize("name", [one.name for one in fields(Load) if one.default is None])
def test_a_single_measure_that_is_missing_never_scales_up_an_idle_service(policy, name):
    seen = constant(replace(IDLE, **{name: None}))
    assert all(one.action is not Action.SCALE_UP for one in follow(ScaleSpec(policy=policy), seen, every(30, 3600), 4))


@every_policy
def test_an_idle_service_ends_at_the_fewest_and_stays_there(policy):
    spec = ScaleSpec(policy=policy, min_instances=2)
    found = follow(spec, constant(IDLE), every(30, 6 * 3600), instances=10)
    assert found[-1].target_instances == 2
    assert {one.action for one in acts(found)} == {Action.SCALE_DOWN}


@every_policy
def test_an_overloaded_service_grows_and_a_small_machine_stops_it(policy):
    """A replica bound by CPU that gets no core only slows the others down."""

    def measured(now, instances):
        return busy(40, instances)

    free = ScaleSpec(policy=policy, max_instances=20, cooldown=0)
    assert follow(free, measured, every(30, 3600))[-1].target_instances == 20
    found = follow(replace(free, max_fed=3), measured, every(30, 3600))
    assert found[-1].target_instances == 3
    assert "the cores can feed 3" in found[-1].reason


@every_policy
def test_a_new_scaler_takes_nothing_away_from_a_service_it_has_not_watched(policy):
    found = follow(ScaleSpec(policy=policy), constant(IDLE), every(30, 299 - 30), instances=8)
    assert not acts(found)


@every_policy
@pytest.mark.parametrize("period", [1, 2, 5])
def test_a_load_that_oscillates_does_not_make_replicas_oscillate(policy, period):
    """Up for the peaks, perhaps once down from a first guess, and then never again."""

    def measured(now, instances):
        return busy(12 if int(now / 30 / period) % 2 else 0.1, instances, slots=4)

    found = follow(ScaleSpec(policy=policy, cooldown=0), measured, every(30, 4 * 3600), instances=2)
    assert [one.action for one in acts(found)].count(Action.SCALE_DOWN) <= 1
    assert not acts(found[len(found) // 2 :])


@every_policy
@settings(max_examples=40)
@given(
    half=st.integers(1, 4),
    low=st.floats(0, 2),
    high=st.floats(2, 60),
    slots=st.integers(1, 8),
    begin=st.integers(1, 10),
)
def test_no_load_that_swings_faster_than_a_calm_makes_replicas_swing(policy, half, low, high, slots, begin):
    """The longest half of a swing is two minutes; the shortest calm, that of threshold, is five."""

    def measured(now, instances):
        return busy(high if int(now / 30 / half) % 2 else low, instances, slots=slots)

    found = follow(ScaleSpec(policy=policy, cooldown=0), measured, every(30, 3 * 3600), instances=begin)
    assert not acts(found[len(found) // 2 :])


@every_policy
@settings(max_examples=40)
@given(
    interval=st.sampled_from([5.0, 30.0, 100.0]),
    calls=st.integers(1, 400),
    service_s=st.sampled_from([0.05, 1.0, 20.0]),
)
def test_one_interval_of_any_load_adds_no_more_than_it_would_need_for_ever_and_all_is_taken_back(
    policy, interval, calls, service_s
):
    spec = ScaleSpec(policy=policy, cooldown=0, monitoring_interval=interval, max_instances=400)

    def measured(now, instances):
        return busy(calls if now == 900 else 0, instances, service_s=service_s, every_s=interval)

    found = follow(spec, measured, every(interval, 3600), instances=2)
    assert max(one.target_instances for one in found) <= max(2, replicas(spec, calls, 1))
    assert found[-1].target_instances == 1
    assert len({one.action for one in found[int(1000 / interval) :]} & {Action.SCALE_UP}) == 0


@every_policy
@pytest.mark.parametrize("jump", [-7200.0, -0.5, 7200.0, 1e9])
def test_a_clock_that_jumps_scales_nothing_by_itself_and_stops_nothing(policy, jump):
    spec = ScaleSpec(policy=policy)
    before = follow(spec, constant(IDLE), every(30, 240), instances=9)
    begin = 270 + jump
    after = follow(spec, constant(IDLE), every(30, begin + 7200, begin), instances=9, state=before[-1].state)
    assert not acts(before)
    assert after[0].action is Action.NONE
    first = next(number for number, one in enumerate(after) if one.action is not Action.NONE)
    # A calm that nobody watched counts for nothing; one that was watched is not lost to a clock that is set back.
    longest = {"threshold": 300, "target": 600, "predictive": 600}[policy]
    assert first * 30 <= longest
    if jump > 0:
        assert first * 30 == longest


@every_policy
def test_what_is_remembered_stays_small_however_often_and_long_a_scaler_is_asked(policy):
    spec = ScaleSpec(policy=policy, monitoring_interval=1.0)

    def measured(now, instances):
        return busy(10 - (now % 3600) / 400, instances, every_s=1.0)

    state = follow(spec, measured, every(1, 4000))[-1].state
    assert len(json.dumps(asdict(state))) < 12_000


@every_policy
@given(low=st.integers(1, 9), instances=st.integers(0, 40))
def test_bounds_that_were_changed_hold_at_once(policy, low, instances):
    spec = ScaleSpec(policy=policy, min_instances=low, max_instances=10)
    seen = busy(0.5, 10) if not instances else busy(0.5, instances)
    decision = decide(spec, replace(seen, instances=instances, ready=instances), ScaleState(acted_at=0.0), 1.0)
    assert low <= decision.target_instances <= 10
    if not low <= instances <= 10:
        assert decision.action is not Action.NONE
