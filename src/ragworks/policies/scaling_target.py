"""As many replicas as the load needs at a target utilisation, and the same with a forecast.

A load of ``a`` calls at once varies by the square root of ``a`` even when nothing changes (square-root staffing, Halfin
and Whitt 1981), so small services need relatively more room than large ones; one utilisation for all sizes wastes at
one end or lets wait at the other. Growth is answered at once, shrinking when the need was lower for long: a missing
replica costs its callers, one too many costs only itself.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt

from ragworks.policies import forecasting
from ragworks.policies.scaling_spec import Load, ScaleSpec, ScaleState, Wish
from ragworks.policies.windows import decayed, highest, keep, keep_highest, mean

SERVICE_TIME_S = 600.0
"""How long a measured service time is remembered: 1/e of it after ten minutes."""

FEW = 4
"""Replicas that may always be added at once, however few there are."""


def target(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> Wish:
    """Replicas for the measured load."""
    if seen.concurrency is None:
        return Wish(seen.instances, "no data: the calls in flight were not measured", state)
    state = _observed(spec, seen, state, now)
    load = mean(state.load, now, spec.target.window_s) or 0.0
    return _wish(spec, seen, state, now, load, f"{load:.1f} calls at once")


def predictive(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> Wish:
    """Replicas for the measured load, or for a higher one that is expected by the time a new replica is ready.

    A forecast only ever raises, and only while it has been better than none; so no call waits that ``target`` would
    have served at once.
    """
    if seen.concurrency is None:
        return Wish(seen.instances, "no data: the calls in flight were not measured", state)
    state = _observed(spec, seen, state, now)
    load = mean(state.load, now, spec.target.window_s) or 0.0
    forecast = forecasting.updated(spec.predictive, state.forecast, now, load, spec.startup_s)
    state = replace(state, forecast=forecast)
    said = f"{load:.1f} calls at once"
    if forecasting.believed(spec.predictive, forecast):
        expected = forecasting.ahead(spec.predictive, forecast, spec.startup_s)
        said += f", {expected:.1f} expected in {spec.startup_s:g} s"
        load = max(load, expected)
    return _wish(spec, seen, state, now, load, said)


def _observed(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> ScaleState:
    elapsed = now - state.seen_at if state.seen_at is not None else 0.0
    learnt_s = state.learnt_s + (elapsed if seen.service_s is not None else 0.0)
    # Until it is known for that long, each interval counts as much as any before it: the first one is no better.
    service_s = decayed(state.service_s, seen.service_s, elapsed, min(SERVICE_TIME_S, learnt_s or SERVICE_TIME_S))
    wanted = _slots_wanted(spec, seen, service_s, elapsed or spec.monitoring_interval)
    load = keep(state.load, now, wanted, spec.target.window_s)
    return replace(state, service_s=service_s, learnt_s=min(learnt_s, SERVICE_TIME_S), load=load)


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


def _wish(spec: ScaleSpec, seen: Load, state: ScaleState, now: float, load: float, said: str) -> Wish:
    """From slots to replicas: up at once, down when the highest need of ``calm_s`` was lower."""
    settings = spec.target
    needed = replicas(spec, load, seen.slots, state.service_s)
    latest = state.load[-1][1]
    # Of what would be left: a burst that so many could not take is no reason to have them and then add more again.
    if latest > settings.panic * needed * seen.slots:
        rushed = ceil(latest / seen.slots - 1e-9)
        if rushed > needed:
            needed, said = rushed, f"a burst of {latest:.1f} calls at once"
    state = replace(state, needed=keep_highest(state.needed, now, needed, settings.calm_s))
    if needed > seen.instances:
        steps = max(FEW, round(seen.instances * (settings.growth - 1)))
        return Wish(min(needed, seen.instances + steps), f"{said} need {needed}", state)
    # The newest need is in the window, so there is one.
    lately = int(highest(state.needed, now, settings.calm_s) or needed)
    if lately >= seen.instances:
        return Wish(seen.instances, f"{said} need {needed}, and {lately} at times lately", state)
    observed = now - (now if state.since is None else state.since)
    if observed < settings.calm_s:
        return Wish(seen.instances, f"{said} need {needed}; watched for {observed:.0f} of {settings.calm_s:g} s", state)
    left = spec.cooldown - (now - state.acted_at) if state.acted_at is not None else 0.0
    if left > 0:
        return Wish(seen.instances, f"{said} need {needed}, but the cooldown lasts {left:.0f} s more", state)
    return Wish(max(lately, seen.instances // 2), f"{said} need {needed}, {lately} at most lately", state)


def replicas(spec: ScaleSpec, load: float, slots: int, service_s: float | None = None) -> int:
    """How many a load of so many calls at once needs, each of ``service_s`` if that is known.

    Averaged over a wait, the number of shorter calls varies less: by the root of the part of it that they take.
    """
    settings = spec.target
    part = 1.0 if service_s is None else min(1.0, service_s / settings.patience_s)
    wanted = max(load / settings.utilisation, load + settings.headroom * sqrt(load * part))
    return ceil(wanted / slots - 1e-9)
