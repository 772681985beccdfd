"""Well-known scaling rules, after their documentation, to be asked by the simulator in place of ours.

Each sees the same measurements once an interval: what others measure more often, or at an instant, is a mean here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil

from ragworks.policies.scaling import Action, Load, ScaleDecision, ScaleSpec, ScaleState
from ragworks.simulator.scaling import Decide

Desired = Callable[[Load, float], int]
"""Replicas that a rule wants, of what it saw, now."""

NEVER = float("inf")


def fixed(replicas: int) -> Decide:
    return _following(lambda seen, now: replicas)


def hpa_utilisation(target: float, stabilisation_s: float) -> Decide:
    """Kubernetes HorizontalPodAutoscaler on utilisation: ready x measured / target, 10 % tolerance."""

    def desired(seen: Load, now: float) -> int:
        ratio = (seen.cpu_percent or 0.0) / 100.0 / target
        return seen.instances if abs(ratio - 1.0) <= 0.1 else ceil(seen.ready * ratio)

    return _following(_stabilised(desired, stabilisation_s))


def hpa_value(per_replica: float, stabilisation_s: float = 300.0) -> Decide:
    """The same on calls in flight and waiting; KEDA's queue length comes to the same formula."""

    def desired(seen: Load, now: float) -> int:
        ratio = (seen.concurrency or 0.0) / (per_replica * seen.instances)
        return seen.instances if abs(ratio - 1.0) <= 0.1 else ceil((seen.concurrency or 0.0) / per_replica)

    return _following(_stabilised(desired, stabilisation_s))


def knative(per_replica: float, delay_s: float, stable_s: float = 60.0) -> Decide:
    """Knative's pod autoscaler: mean over the stable window, the last interval in panic, half at most at once."""
    seen_values: deque[tuple[float, float]] = deque()
    wanted: deque[tuple[float, int]] = deque()
    panic_until = -NEVER

    def desired(seen: Load, now: float) -> int:
        nonlocal panic_until
        _add(seen_values, now, seen.concurrency or 0.0, stable_s)
        stable = ceil(sum(value for _, value in seen_values) / len(seen_values) / per_replica)
        latest = ceil((seen.concurrency or 0.0) / per_replica)
        if latest >= 2 * max(1, seen.ready):
            panic_until = now + stable_s
        want = max(stable, seen.instances // 2)
        if now < panic_until:
            want = max(latest, seen.instances)
        if delay_s:
            _add(wanted, now, want, delay_s)
            want = max(one for _, one in wanted)
        return want

    return _following(desired)


def ray_serve(per_replica: float, up_delay_s: float, down_delay_s: float, look_back_s: float = 30.0) -> Decide:
    """Ray Serve: mean of ongoing requests over the look-back, acted on once it was wanted for the whole delay."""
    seen_values: deque[tuple[float, float]] = deque()
    since = {1: NEVER, -1: NEVER}

    def desired(seen: Load, now: float) -> int:
        _add(seen_values, now, seen.concurrency or 0.0, look_back_s)
        want = ceil(sum(value for _, value in seen_values) / len(seen_values) / per_replica)
        for direction, delay_s in ((1, up_delay_s), (-1, down_delay_s)):
            if (want - seen.instances) * direction <= 0:
                since[direction] = NEVER
                continue
            since[direction] = min(since[direction], now)
            if now - since[direction] >= delay_s:
                return want
        return seen.instances

    return _following(desired)


PEERS: dict[str, Callable[[], Decide]] = {
    "K8s HPA (util target 0.7, stabilisation 300 s)": lambda: hpa_utilisation(0.7, 300.0),
    "K8s HPA (util target 0.5, stabilisation 300 s)": lambda: hpa_utilisation(0.5, 300.0),
    "K8s HPA (ongoing target 0.7, stabilisation 300 s)": lambda: hpa_value(2.8),
    "K8s HPA (util target 0.7, stabilisation 60 s)": lambda: hpa_utilisation(0.7, 60.0),
    "Knative KPA (target 0.7 of slots, down delay 0 s)": lambda: knative(2.8, 0.0),
    "Knative KPA (target 0.7 of slots, down delay 120 s)": lambda: knative(2.8, 120.0),
    "KEDA queue length (target 4 per replica)": lambda: hpa_value(4.0),
    "KEDA queue length (target 2.8 per replica)": lambda: hpa_value(2.8),
    "Ray Serve (target 2.8 ongoing, 30/600 s)": lambda: ray_serve(2.8, 30.0, 600.0),
    "Ray Serve (target 2.8 ongoing, 0/120 s)": lambda: ray_serve(2.8, 0.0, 120.0),
    "Ray Serve (target 2 ongoing, 0/120 s)": lambda: ray_serve(2.0, 0.0, 120.0),
}
"""Makers, since a rule remembers: one for each run. Targets are for 4 slots."""


def _stabilised(desired: Desired, span_s: float) -> Desired:
    """Down to the highest wish of the last ``span_s``; up at once."""
    wanted: deque[tuple[float, int]] = deque()

    def stabilised(seen: Load, now: float) -> int:
        want = desired(seen, now)
        _add(wanted, now, want, span_s)
        return want if want >= seen.instances else min(seen.instances, max(one for _, one in wanted))

    return stabilised


def _add(
    values: deque[tuple[float, float]] | deque[tuple[float, int]], now: float, value: float, span_s: float
) -> None:
    values.append((now, value))  # type: ignore[arg-type]
    while values[0][0] <= now - span_s:
        values.popleft()


def _following(desired: Desired) -> Decide:
    def decide(spec: ScaleSpec, seen: Load | None, state: ScaleState, now: float) -> ScaleDecision:
        if seen is None:
            raise ValueError("a simulation always measures")
        want = max(1, desired(seen, now))
        action = Action.NONE if want == seen.instances else Action.SCALE_UP
        if want < seen.instances:
            action = Action.SCALE_DOWN
        return ScaleDecision(action, want, "", seen, state)

    return decide
