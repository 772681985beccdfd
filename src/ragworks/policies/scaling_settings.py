"""Settings of a scaler: changed by name, and refused when they contradict themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from math import inf
from typing import Any

from ragworks.errors import InvalidSettings
from ragworks.policies.forecasting import ForecastSettings
from ragworks.policies.scaling import POLICIES, ScaleSpec


def check(spec: ScaleSpec) -> None:
    """Raises InvalidSettings for what contradicts itself, with the setting, what is allowed and what was found."""
    low, high = spec.threshold.scale_down, spec.threshold.scale_up
    numbers = [(name, value) for name, value in _values(spec) if isinstance(value, int | float)]
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
        ("predictive.level", spec.predictive.level, "above 0, below 1", 0 < spec.predictive.level < 1),
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
        *((name, value, "0 or more", 0 <= value < inf) for name, value in numbers if name not in _POSITIVE),
        *((name, value, "above 0", 0 < value < inf) for name, value in numbers if name in _POSITIVE),
    ]
    for name, found, allowed, holds in rules:
        if not holds:
            raise InvalidSettings(f"{name} must be {allowed}; found {found}")


_POSITIVE = {
    "monitoring_interval",
    "target.window_s",
    "target.drain_s",
    "target.patience_s",
    "target.calm_s",
    "target.panic",
    *(f"predictive.{one.name}" for one in fields(ForecastSettings)),
}
"""Divisors, and spans that must hold one observation."""


def changed(spec: ScaleSpec, name: str, text: str) -> ScaleSpec:
    """The spec with one number set by its dotted name, as ``target.utilisation``. Raises InvalidSettings."""
    known = [one for one, _ in _values(spec) if one != "policy"]
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InvalidSettings(f"there is no setting {name!r} of a scaler; did you mean {nearest!r}?")
    whole = not isinstance(dict(_values(spec))[name], float)
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        wanted = "a whole number" if whole else "a number"
        raise InvalidSettings(f"{name} must be {wanted}; found {text!r}") from None
    found: ScaleSpec = _with(spec, name.split("."), value)
    return found


def _values(holder: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for one in fields(holder):
        value = getattr(holder, one.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{one.name}.")
        else:
            yield f"{prefix}{one.name}", value


def _with(holder: Any, path: list[str], value: float) -> Any:
    first, *rest = path
    return replace(holder, **{first: _with(getattr(holder, first), rest, value) if rest else value})
