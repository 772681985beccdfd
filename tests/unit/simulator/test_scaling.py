"""Replicas that start, serve and drain on a virtual clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.scaling import Action, ScaleDecision, ScaleSpec
from ragworks.simulator.demand import FIRST_S, Demand
from ragworks.simulator.scaling import Oracle, Setting, oracle, simulate

ONE_SLOT = Setting(slots=1, startup_s=30.0, interval_s=15.0)
SPEC = ScaleSpec(max_instances=50, monitoring_interval=15.0)


def demand(*requests, length_s=600.0):
    """Of (when, work)."""
    t, work = zip(*sorted(requests), strict=True)
    return Demand(np.array(t, dtype=float), np.array(work, dtype=float), length_s)


def planned(plan, watched=None):
    """A policy that follows {when: replicas}, and keeps what it was shown."""

    def decide(spec, seen, state, now):
        if watched is not None:
            watched[now] = seen
        target = plan.get(now, seen.instances)
        action = Action.SCALE_UP if target > seen.instances else Action.SCALE_DOWN
        return ScaleDecision(action if target != seen.instances else Action.NONE, target, "", seen, state)

    return decide


def start(replicas):
    return Oracle(mean=1.0, peak=replicas, actions=0, initial=replicas)


def test_who_finds_no_slot_waits_for_the_first_that_is_free():
    result = simulate(SPEC, demand((130, 10), (131, 10), (132, 3)), ONE_SLOT, start(1), planned({}))
    # 131 waits 9 s, 132 waits 18 s.
    assert (result.wait_over_1s_share, result.worst_wait_s) == (pytest.approx(2 / 3), pytest.approx(18))


def test_a_replica_serves_once_it_has_started_and_costs_from_the_decision_on():
    """Decided at 135 s, ready at 165 s."""
    result = simulate(SPEC, demand((130, 100), (140, 10)), ONE_SLOT, start(1), planned({135.0: 2}))
    assert result.worst_wait_s == pytest.approx(25)
    assert result.replica_hours_ratio == pytest.approx((600 + 465) / 600)
    assert (result.actions, result.peak_replicas) == (1, 2)


def test_a_replica_that_goes_ends_its_work_first_and_the_least_busy_goes():
    """Of two replicas one works from 130 s on; at 135 s the other goes, at 150 s it goes too, but stays until 170 s."""
    two = planned({135.0: 1})
    result = simulate(SPEC, demand((130, 40)), ONE_SLOT, start(2), two)
    assert result.replica_hours_ratio == pytest.approx((600 + 135) / 600)
    busy_one = simulate(SPEC, demand((130, 40), (131, 40), (300, 1)), ONE_SLOT, start(2), planned({135.0: 1}))
    assert busy_one.replica_hours_ratio == pytest.approx((600 + 170) / 600)
    assert busy_one.worst_wait_s == 0


def test_a_replica_that_is_still_starting_goes_before_one_that_works():
    result = simulate(SPEC, demand((130, 100), (140, 10)), ONE_SLOT, start(1), planned({135.0: 2, 150.0: 1}))
    assert result.replica_hours_ratio == pytest.approx((600 + 15) / 600)
    assert result.worst_wait_s == pytest.approx(90)
    assert result.reversals == 1


def test_what_a_policy_is_shown_is_what_its_front_can_measure():
    """Between 135 and 150 s two end, and one comes."""
    watched = {}
    simulate(SPEC, demand((130, 15), (136, 10), (134, 1)), ONE_SLOT, start(1), planned({}, watched))
    seen = watched[150.0]
    # From 135 on: 130's until 145, then 134's until 146, then 136's; 134's has waited 11 s, 136's 10 s.
    assert seen.concurrency == pytest.approx((10 + 11 + 14) / 15)
    assert (seen.arrived, seen.completed, seen.queue_size) == (1, 2, 0)
    assert (seen.service_s, seen.cpu_percent) == (pytest.approx(8), pytest.approx(100))
    assert seen.response_s == pytest.approx((11 + 10) / 2)
    idle = watched[210.0]
    assert (idle.concurrency, idle.arrived, idle.completed, idle.service_s, idle.cpu_percent) == (0, 0, 0, None, 0)


@given(
    requests=st.lists(st.tuples(st.floats(0, 500), st.floats(0.01, 100)), min_size=1, max_size=60),
    plan=st.dictionaries(st.integers(8, 39).map(lambda tick: tick * 15.0), st.integers(1, 9)),
    slots=st.integers(1, 4),
)
def test_nobody_is_lost_or_served_before_its_turn_whatever_is_scaled(requests, plan, slots):
    watched = {}
    setting = replace(ONE_SLOT, slots=slots)
    result = simulate(SPEC, demand(*requests), setting, start(1), planned(plan, watched))
    assert 0 <= result.wait_over_1s_share <= 1
    assert result.worst_wait_s < np.inf
    assert result.replica_hours_ratio >= 1 - 1e-9  # one replica was always there
    arrived = sum(one.arrived for one in watched.values())
    assert arrived == sum(at <= max(watched) for at, _ in requests)
    for seen in watched.values():
        assert seen.ready <= seen.instances


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0.01, 30)), min_size=1, max_size=60), st.integers(1, 4))
def test_the_peak_of_the_oracle_lets_nobody_wait(requests, slots):
    setting = replace(ONE_SLOT, slots=slots)
    seen = oracle(demand(*requests), setting)
    result = simulate(SPEC, demand(*requests), setting, replace(seen, initial=seen.peak), planned({}))
    assert result.worst_wait_s == 0
    assert seen.mean <= seen.peak


def steady(calls, length_s, seed=0, slots_s=3.0):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(slots_s / calls, int(calls / slots_s * length_s * 1.5)))
    t = t[t < length_s]
    return Demand(t, rng.exponential(slots_s, len(t)), length_s)


@pytest.mark.parametrize("policy", ["target", "predictive"])
def test_a_step_to_eight_times_the_load_is_recovered_from_within_minutes_and_given_back(policy):
    low, high = steady(2, 3600.0), steady(14, 1200.0, seed=1)
    t = np.concatenate([low.t, high.t + 1200])
    order = np.argsort(t)
    both = Demand(t[order], np.concatenate([low.work, high.work])[order], 3600.0)
    setting = Setting()
    seen = oracle(both, setting)
    result = simulate(replace(SPEC, policy=policy), both, setting, replace(seen, initial=2))
    targets = [one.target_instances for one in result.decisions]
    at = {int(FIRST_S + 15 * number): target for number, target in enumerate(targets)}
    assert at[1185] <= 3
    assert at[1290] >= 5  # 16 calls need 4 replicas without any headroom
    assert max(targets) <= 12
    assert at[3585] <= 3
    assert result.worst_wait_s < 60
    assert result.reversals <= 3


def test_a_prediction_lets_no_more_wait_than_none():
    load = steady(10, 1800.0)
    setting = Setting()
    seen = oracle(load, setting)
    one, other = (simulate(replace(SPEC, policy=policy), load, setting, seen) for policy in ("target", "predictive"))
    assert other.wait_over_1s_share <= one.wait_over_1s_share
