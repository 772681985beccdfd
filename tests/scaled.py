"""A service as a scaler sees it: what a test says is measured, replicas that follow decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ragworks.policies.scaling import Action, Load, ScaleDecision, ScaleSpec, ScaleState, decide

Measured = Callable[[float, int], Load | None]
"""What is measured at a time, of so many replicas."""

IDLE = Load(
    1,
    1,
    concurrency=0.0,
    queue_size=0,
    arrived=0,
    completed=0,
    error_percent=None,
    cpu_percent=1.0,
    memory_percent=20.0,
)


def busy(calls: float, instances: int, *, slots: int = 1, service_s: float = 1.0, every_s: float = 30.0) -> Load:
    """A load of so many calls at once; what has no slot waits, and no call fails."""
    capacity = instances * slots
    waiting = max(0.0, calls - capacity)
    arrived = round(calls / service_s * every_s)
    return Load(
        instances,
        instances,
        slots,
        concurrency=float(calls),
        queue_size=int(waiting),
        arrived=arrived,
        completed=arrived,
        service_s=service_s,
        response_s=waiting / capacity * service_s,
        error_percent=0.0,
        cpu_percent=100.0 * min(calls, capacity) / capacity,
        memory_percent=20.0,
    )


def follow(
    spec: ScaleSpec, measured: Measured, ticks: Iterable[float], instances: int = 1, state: ScaleState | None = None
) -> list[ScaleDecision]:
    """The decisions, each applied at once."""
    state, found = state or ScaleState(), []
    for now in ticks:
        seen = measured(now, instances)
        decision = decide(spec, seen, state, now)
        state = decision.state
        if decision.action is not Action.NONE:
            instances = decision.target_instances
        found.append(decision)
    return found


def constant(load: Load | None) -> Measured:
    return lambda now, instances: load and replace(load, instances=instances, ready=instances)


def acts(decisions: Iterable[ScaleDecision]) -> list[ScaleDecision]:
    return [one for one in decisions if one.action is not Action.NONE]


def every(interval_s: float, until: float, begin: float = 0.0) -> list[float]:
    return [begin + number * interval_s for number in range(int((until - begin) / interval_s) + 1)]
