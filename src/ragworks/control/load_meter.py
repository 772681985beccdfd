"""What a scaler is shown of a service: its replicas looked at every second, its calls counted, over one interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ragworks.control.replicas import ReplicaView
from ragworks.control.traffic import Traffic
from ragworks.policies.scaling import Load
from ragworks.types import Life

Views = Callable[[float], Sequence[ReplicaView]]


class LoadMeter:
    """``views`` are the replicas at a time, ``traffic`` the calls of one since it came, ``waiting`` how many calls wait
    for a replica. Call ``sample`` every second.
    """

    def __init__(self, views: Views, traffic: Callable[[str], Traffic], waiting: Callable[[], int]) -> None:
        self._views, self._traffic, self._waiting, self._slots = views, traffic, waiting, 1
        self._counted: dict[str, Traffic] = {}
        self._there: int | None = None
        self._sampled_at: float | None = None
        self._forget()

    def sample(self, now: float) -> tuple[Sequence[ReplicaView], int]:
        """Look at the replicas and at who waits; what is seen stands for the time since the last look."""
        views, waiting = self._views(now), self._waiting()
        if self._sampled_at is None:
            self._ended(views)  # what went before is of no interval
        span = now - self._sampled_at if self._sampled_at is not None else 0.0
        self._sampled_at = now
        serving = [view for view in views if view.life is not Life.DRAINING]
        self._slots = max((view.slots for view in serving), default=self._slots)
        if span > 0:
            self._span += span
            self._calls += span * (waiting + sum(view.active_connections for view in views))
            self._busy += span * sum(min(view.active_connections, view.slots) for view in views)
        return views, waiting

    def measured(self, now: float, instances: int) -> Load:
        """The load since the last time, of ``instances`` that were asked for."""
        views, waiting = self.sample(now)
        serving = [view for view in views if view.life is not Life.DRAINING]
        ended = self._ended(views)
        there = waiting + sum(view.active_connections for view in views)
        load = Load(
            instances=instances,
            ready=len(serving),
            slots=self._slots,
            concurrency=self._calls / self._span if self._span else None,
            queue_size=waiting,
            arrived=None if self._there is None else max(0, ended.calls + there - self._there),
            completed=ended.calls,
            # Slot-seconds over calls: the time a call takes in a slot, without what it waited before it.
            service_s=self._busy / ended.calls if ended.calls and self._busy else None,
            response_s=ended.response_s,
            error_percent=100.0 * ended.failed / ended.calls if ended.calls else None,
            cpu_percent=_mean([view.cpu_usage for view in serving]),
            memory_percent=_mean([view.memory_usage for view in serving]),
        )
        self._there = there
        self._forget()
        return load

    def _ended(self, views: Sequence[ReplicaView]) -> Traffic:
        """Calls that ended since the last time; those of replicas that are gone by now are lost."""
        before, self._counted = self._counted, {view.id: self._traffic(view.id) for view in views}
        news = [_since(before.get(replica, Traffic()), seen) for replica, seen in self._counted.items()]
        return Traffic(
            sum(one.calls for one in news), sum(one.failed for one in news), sum(one.seconds for one in news)
        )

    def _forget(self) -> None:
        self._span, self._calls, self._busy = 0.0, 0.0, 0.0


def _since(before: Traffic, seen: Traffic) -> Traffic:
    """Of a replica that was killed the calls are forgotten before it is gone; they were no fewer for it."""
    return seen if seen.calls < before.calls else seen - before


def _mean(values: Sequence[float | None]) -> float | None:
    """None as soon as one is not known: the mean of the others may be of the idle ones."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
