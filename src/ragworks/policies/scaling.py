"""How many replicas a service should have, and why; or that there is no saying, because nothing was measured.

Policies by name in ``POLICIES``; whichever decides, bounds hold at once, and a clock that is set, a hole in the
measurements or a missing metric changes nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any

from ragworks.errors import InvalidSettings
from ragworks.policies import forecasting
from ragworks.policies.forecasting import ForecastSettings
from ragworks.policies.scaling_spec import Action, Load, ScaleDecision, ScaleSpec, ScaleState, Wish
from ragworks.policies.scaling_target import predictive, target
from ragworks.policies.scaling_threshold import threshold
from ragworks.policies.windows import shifted

__all__ = ["POLICIES", "Action", "Load", "ScaleDecision", "ScaleSpec", "ScaleState", "changed", "check", "decide"]

Policy = Callable[[ScaleSpec, Load, ScaleState, float], Wish]

POLICIES: dict[str, Policy] = {"threshold": threshold, "target": target, "predictive": predictive}

HOLE = 3
"""Intervals without a measurement after which nobody knows what went on meanwhile."""


def decide(spec: ScaleSpec, seen: Load | None, state: ScaleState, now: float) -> ScaleDecision:
    """``now`` is in seconds of the clock that the state is of; ``seen`` is None when nothing could be measured."""
    if seen is None:
        return ScaleDecision(Action.NONE, spec.min_instances, "no data: nothing was measured", None, state)
    seen, state = _known(seen), _timed(spec, state, now)
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
    unknown = [one.name for one in fields(seen) if not isfinite(getattr(seen, one.name) or 0)]
    return replace(seen, **dict.fromkeys(unknown)) if unknown else seen


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


def check(spec: ScaleSpec) -> None:
    """Raises InvalidSettings for what contradicts itself, with the setting, what is allowed and what was found."""
    low, high = spec.threshold.scale_down, spec.threshold.scale_up
    rules: list[tuple[str, object, str, bool]] = [
        ("policy", spec.policy, f"one of {', '.join(POLICIES)}", spec.policy in POLICIES),
        ("min_instances", spec.min_instances, "1 or more", spec.min_instances >= 1),
        (
            "max_instances",
            spec.max_instances,
            f"{spec.min_instances} (min_instances) or more",
            spec.max_instances >= spec.min_instances,
        ),
        ("max_fed", spec.max_fed, "1 or more, or nothing", spec.max_fed is None or spec.max_fed >= 1),
        ("target.utilisation", spec.target.utilisation, "above 0, 1 at most", 0 < spec.target.utilisation <= 1),
        ("target.growth", spec.target.growth, "1 or more", spec.target.growth >= 1),
        *(
            (
                f"threshold.scale_down.{one.name}",
                getattr(low, one.name),
                f"below {getattr(high, one.name):g} (threshold.scale_up.{one.name})",
                getattr(low, one.name) < getattr(high, one.name),
            )
            for one in fields(low)
        ),
        *((name, value, "0 or more", value >= 0) for name, value in _numbers(spec) if name not in _POSITIVE),
        *((name, value, "above 0", value > 0) for name, value in _numbers(spec) if name in _POSITIVE),
    ]
    for name, found, allowed, holds in rules:
        if not holds:
            raise InvalidSettings(f"{name} must be {allowed}; found {found}")


_POSITIVE = {
    "monitoring_interval",
    "target.window_s",
    "target.drain_s",
    "target.calm_s",
    "target.panic",
    *(f"predictive.{one.name}" for one in fields(ForecastSettings)),
}
"""Divisors, and spans that must hold one observation."""


def _numbers(values: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    for one in fields(values):
        value = getattr(values, one.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{one.name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{one.name}", float(value)


def changed(spec: ScaleSpec, name: str, text: str) -> ScaleSpec:
    """The spec with one number set by its dotted name, as ``target.utilisation``. Raises InvalidSettings."""
    known = sorted(name for name, _ in _numbers(spec))
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InvalidSettings(f"there is no setting {name!r} of a scaler; did you mean {nearest!r}?")
    *parents, last = name.split(".")
    holders: list[Any] = [spec]
    for parent in parents:
        holders.append(getattr(holders[-1], parent))
    kind = type(getattr(holders[-1], last))
    try:
        value = kind(text)
    except ValueError:
        raise InvalidSettings(f"{name} must be a {kind.__name__}; found {text!r}") from None
    for holder, attribute in zip(reversed(holders), [last, *reversed(parents)], strict=True):
        value = replace(holder, **{attribute: value})
    return value  # type: ignore[no-any-return]  # a spec, since the first holder is one
