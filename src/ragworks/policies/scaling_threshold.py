"""The rule of thresholds: one more when anything is too high, one less when all has been low for long.

Kept as it is known, so that better ones can be compared with it.
"""

from __future__ import annotations

from dataclasses import replace

from ragworks.policies.scaling_spec import Load, ScaleSpec, ScaleState, Wish


def threshold(spec: ScaleSpec, seen: Load, state: ScaleState, now: float) -> Wish:
    """The window of calm goes on during the cooldown and starts anew after every action."""
    exceeded, calm, noisy = _exceeded(spec, seen), *_low(spec, seen)
    calm_since = (now if state.calm_since is None else state.calm_since) if calm else None
    state = replace(state, calm_since=calm_since)
    left = spec.cooldown - (now - state.acted_at) if state.acted_at is not None else 0.0
    if exceeded:
        reason = f"{exceeded} is exceeded"
        wanted = seen.instances + 1
    elif calm_since is not None and now - calm_since >= spec.threshold.stable_duration:
        reason = f"everything has been low for {now - calm_since:.0f} s"
        wanted = seen.instances - 1
    elif calm_since is not None:
        return Wish(seen.instances, f"low for {now - calm_since:.0f} of {spec.threshold.stable_duration:g} s", state)
    else:
        return Wish(seen.instances, f"{noisy} is not low", state)
    if left > 0:
        return Wish(seen.instances, f"{reason}, but the cooldown lasts {left:.0f} s more", state)
    return Wish(wanted, reason, state)


def _exceeded(spec: ScaleSpec, seen: Load) -> str:
    """What is above its limit, in words; empty if nothing is. What was not measured exceeds nothing."""
    limits = spec.threshold.scale_up
    for name, value, limit in (
        ("cpu_threshold", seen.cpu_percent, limits.cpu_threshold),
        ("memory_threshold", seen.memory_percent, limits.memory_threshold),
        ("response_time_threshold", seen.response_s, limits.response_time_threshold),
        ("queue_size_threshold", seen.queue_size, limits.queue_size_threshold),
        ("error_rate_threshold", seen.error_percent, limits.error_rate_threshold),
    ):
        if value is not None and value > limit:
            return f"{name} {limit:g} ({value:.3g})"
    return ""


def _low(spec: ScaleSpec, seen: Load) -> tuple[bool, str]:
    """Whether all is below its limit, else what is not. What was not measured is not low, but a response time of no
    requests is."""
    limits = spec.threshold.scale_down
    response = 0.0 if seen.response_s is None and seen.completed == 0 else seen.response_s
    for name, value, limit in (
        ("cpu_threshold", seen.cpu_percent, limits.cpu_threshold),
        ("memory_threshold", seen.memory_percent, limits.memory_threshold),
        ("response_time_threshold", response, limits.response_time_threshold),
        ("queue_size_threshold", seen.queue_size, limits.queue_size_threshold),
    ):
        if value is None:
            return False, f"{name} (not measured)"
        if value >= limit:
            return False, f"{name} {limit:g} ({value:.3g})"
    return True, ""
