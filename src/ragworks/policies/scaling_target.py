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
from ragworks.policies.scaling_load import foreseen, lately
from ragworks.policies.scaling_spec import Load, ScaleSpec, ScaleState, Wish
from ragworks.policies.windows import highest, keep_highest

FEW = 4
"""Replicas that may always be added at once, however few there are."""


def target(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> Wish:
    """Replicas for the measured load."""
    if seen.concurrency is None:
        return Wish(seen.instances, "no data: the calls in flight were not measured", state)
    load = lately(spec, state, now)
    return _wish(spec, seen, state, now, load, f"{load:.1f} calls at once")


def predictive(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> Wish:
    """Replicas for the measured load, or for a higher one that is expected by the time a new replica is ready.

    A forecast only ever raises, and only while it has been better than none; so no call waits that ``target`` would
    have served at once.
    """
    if seen.concurrency is None:
        return Wish(seen.instances, "no data: the calls in flight were not measured", state)
    load = lately(spec, state, now)
    said = f"{load:.1f} calls at once"
    forecast = foreseen(spec, state)
    if forecast is not None and forecasting.believed(spec.predictive, state.forecast):
        between = f"{forecast.low:.1f} to {forecast.high:.1f} in {100 * forecast.level:g} % of cases"
        said += f", {forecast.expected:.1f} expected in {forecast.in_s:g} s ({between})"
        load = max(load, forecast.expected)
    return _wish(spec, seen, state, now, load, said)


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
    peak = int(highest(state.needed, now, settings.calm_s) or needed)
    if peak >= seen.instances:
        return Wish(seen.instances, f"{said} need {needed}, and {peak} at times lately", state)
    observed = now - (now if state.since is None else state.since)
    if observed < settings.calm_s:
        return Wish(seen.instances, f"{said} need {needed}; watched for {observed:.0f} of {settings.calm_s:g} s", state)
    left = spec.cooldown - (now - state.acted_at) if state.acted_at is not None else 0.0
    if left > 0:
        return Wish(seen.instances, f"{said} need {needed}, but the cooldown lasts {left:.0f} s more", state)
    return Wish(max(peak, seen.instances // 2), f"{said} need {needed}, {peak} at most lately", state)


def replicas(spec: ScaleSpec, load: float, slots: int, service_s: float | None = None) -> int:
    """How many a load of so many calls at once needs, each of ``service_s`` if that is known.

    Averaged over a wait, the number of shorter calls varies less: by the root of the part of it that they take.
    """
    settings = spec.target
    part = 1.0 if service_s is None else min(1.0, service_s / settings.patience_s)
    wanted = max(load / settings.utilisation, load + settings.headroom * sqrt(load * part))
    return ceil(wanted / slots - 1e-9)
