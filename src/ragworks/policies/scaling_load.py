"""The load as it is measured, remembered and foreseen, whatever the policy."""

from __future__ import annotations

from dataclasses import replace

from ragworks.policies import forecasting
from ragworks.policies.forecasting import Foreseen
from ragworks.policies.scaling_spec import Load, ScaleSpec, ScaleState
from ragworks.policies.windows import decayed, keep, mean

SERVICE_TIME_S = 600.0
"""How long a measured service time is remembered: 1/e of it after ten minutes."""


def observed(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> ScaleState:
    """The state after one more measurement; the same where the calls in flight were not measured."""
    if seen.concurrency is None:
        return state
    elapsed = now - state.seen_at if state.seen_at is not None else 0.0
    learnt_s = state.learnt_s + (elapsed if seen.service_s is not None else 0.0)
    # Until it is known for that long, each interval counts as much as any before it: the first one is no better.
    service_s = decayed(state.service_s, seen.service_s, elapsed, min(SERVICE_TIME_S, learnt_s or SERVICE_TIME_S))
    wanted = _slots_wanted(spec, seen, service_s, elapsed or spec.monitoring_interval)
    load = keep(state.load, now, wanted, spec.target.window_s)
    state = replace(state, service_s=service_s, learnt_s=min(learnt_s, SERVICE_TIME_S), load=load)
    at_once = lately(spec, state, now)
    return replace(state, forecast=forecasting.updated(spec.predictive, state.forecast, now, at_once, horizon_s(spec)))


def lately(spec: ScaleSpec, state: ScaleState, now: float) -> float:
    """Calls at once, on average."""
    return mean(state.load, now, spec.target.window_s) or 0.0


def foreseen(spec: ScaleSpec, state: ScaleState) -> Foreseen | None:
    """What the load will be when a replica that is asked for now is ready; None before it was ever measured."""
    return forecasting.foreseen(spec.predictive, state.forecast, horizon_s(spec))


def horizon_s(spec: ScaleSpec) -> float:
    """How far ahead a forecast looks. Of nothing sooner than the next measurement it is seen what came of it."""
    return max(spec.startup_s, spec.monitoring_interval)


def _slots_wanted(spec: ScaleSpec, seen: Load, service_s: float | None, elapsed: float) -> float:
    """Slots for the calls that come, and those that serve who waits.

    While none waits, the calls that are worked on are the load. Beyond that they only say how many slots there are, so
    the load is arrivals a second x service time. Who waits is served by more replicas only once these are ready; until
    nothing is known of the service time, each wants a slot.
    """
    there = seen.concurrency or 0.0
    served = min(there, float(seen.ready * seen.slots))
    waiting = there - served
    if service_s is None or seen.arrived is None:
        return there
    coming = seen.arrived / elapsed * service_s if waiting > 0 else 0.0
    return max(served, min(coming, there)) + waiting * min(1.0, service_s / max(spec.target.drain_s, spec.startup_s))
