"""How many replicas a service should have, and why; or that there is no saying, because nothing was measured.

Policies by name in ``POLICIES``; whichever decides, bounds hold at once, and a clock that is set, a hole in the
measurements or a missing metric changes nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import isfinite
from typing import Any

from ragworks.policies import forecasting
from ragworks.policies.scaling_load import observed
from ragworks.policies.scaling_spec import Action, Load, ScaleDecision, ScaleSpec, ScaleState, Wish
from ragworks.policies.scaling_target import predictive, target
from ragworks.policies.scaling_threshold import threshold
from ragworks.policies.windows import shifted

__all__ = ["POLICIES", "Action", "Load", "ScaleDecision", "ScaleSpec", "ScaleState", "decide"]

Policy = Callable[[ScaleSpec, Load, ScaleState, float], Wish]

POLICIES: dict[str, Policy] = {"threshold": threshold, "target": target, "predictive": predictive}

HOLE = 3
"""Intervals without a measurement after which nobody knows what went on meanwhile."""


def decide(spec: ScaleSpec, seen: Load | None, state: ScaleState, now: float) -> ScaleDecision:
    """``now`` is in seconds of the clock that the state is of; ``seen`` is None when nothing could be measured."""
    if seen is None:
        return ScaleDecision(Action.NONE, spec.min_instances, "no data: nothing was measured", None, state)
    seen = _known(seen)
    state = observed(spec, seen, _timed(spec, state, now), now)
    wish = POLICIES[spec.policy](spec, seen, state, now)
    wanted, reason = wish.instances, wish.reason
    bounded = min(max(wanted, spec.min_instances), spec.most)
    if bounded != wanted:
        reason += f"; {_bound(spec, wanted)}"
    state = replace(wish.state, seen_at=now)
    if bounded == seen.instances:
        return ScaleDecision(Action.NONE, bounded, reason, seen, state)
    action = Action.SCALE_UP if bounded > seen.instances else Action.SCALE_DOWN
    # The stable duration starts anew after every action.
    state = replace(state, acted_at=now, calm_since=None if state.calm_since is None else now)
    return ScaleDecision(action, bounded, reason, seen, state)


def _known(seen: Load) -> Load:
    """Without what no number stands for: a source that divides by nothing has measured nothing."""
    unknown: dict[str, Any] = {one.name: None for one in fields(seen) if not isfinite(getattr(seen, one.name) or 0)}
    return replace(seen, **unknown) if unknown else seen


def _bound(spec: ScaleSpec, wanted: int) -> str:
    if wanted < spec.min_instances:
        return f"min_instances is {spec.min_instances}"
    if spec.most < spec.max_instances:
        return f"the cores can feed {spec.most}"
    return f"max_instances is {spec.most}"


def _timed(spec: ScaleSpec, state: ScaleState, now: float) -> ScaleState:
    """The state on a clock that may have been set back, and without a calm that nobody watched."""
    if state.seen_at is None:
        return replace(state, seen_at=now, since=now)
    if now < state.seen_at:
        # As if no time had passed: neither a cooldown nor a calm gets shorter, or lasts until the clock has caught up.
        return _moved(state, now - state.seen_at)
    if now - state.seen_at > HOLE * spec.monitoring_interval:
        return replace(state, since=now, calm_since=None)
    return state


def _moved(state: ScaleState, by_s: float) -> ScaleState:
    def moved(at: float | None) -> float | None:
        return None if at is None else at + by_s

    return replace(
        state,
        seen_at=moved(state.seen_at),
        since=moved(state.since),
        acted_at=moved(state.acted_at),
        calm_since=moved(state.calm_since),
        load=shifted(state.load, by_s),
        needed=shifted(state.needed, by_s),
        forecast=forecasting.shifted(state.forecast, by_s),
    )
