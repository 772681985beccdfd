"""Scaling policies against recorded load: replicas that take time to start and to drain, on a virtual clock.

One queue, first come first served; each replica works on ``slots`` requests at once. What a policy is shown is what a
live loop can measure at its front: calls in flight and waiting, completions and the time they took. It never sees work
that has not ended, nor what comes next. An answer streams, so it responds when a slot takes it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

import numpy as np

from ragworks.policies.scaling import Action, Load, ScaleDecision, ScaleSpec, ScaleState, decide
from ragworks.simulator.demand import FIRST_S, Demand, in_service

LATE_S = 1.0
LOOKS_AHEAD_S = 60.0

MEMORY_PERCENT = 30.0
"""What a replica that keeps nothing takes, whatever it does."""

_SIGNS = {Action.SCALE_UP: 1, Action.SCALE_DOWN: -1}

Decide = Callable[[ScaleSpec, Load | None, ScaleState, float], ScaleDecision]


@dataclass(frozen=True, slots=True)
class Setting:
    """A place where policies are compared."""

    slots: int = 4
    startup_s: float = 30.0
    interval_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Oracle:
    """The plan of somebody who knows what comes: nobody waits, and no replica is there that is not needed soon."""

    mean: float
    peak: int
    actions: int
    initial: int


@dataclass(frozen=True, slots=True)
class Result:
    """``replica_hours_ratio`` is relative to the oracle, which lets nobody wait: who lets some wait can cost less."""

    policy: str
    wait_over_1s_share: float
    p99_wait_s: float
    worst_wait_s: float
    replica_hours_ratio: float
    actions: int
    reversals: int
    peak_replicas: int
    decisions: tuple[ScaleDecision, ...] = ()


def oracle(demand: Demand, setting: Setting) -> Oracle:
    at, there = in_service(demand)
    needed = np.maximum(1, np.ceil(there / setting.slots))

    def most(begin: float, end: float) -> int:
        first = max(0, int(np.searchsorted(at, begin, "right")) - 1)
        return int(needed[first : max(int(np.searchsorted(at, end)), first + 1)].max())

    initial = most(0.0, FIRST_S)
    ticks = np.arange(0.0, demand.length_s, setting.interval_s)
    plan = [initial if tick < FIRST_S else most(tick, tick + LOOKS_AHEAD_S) for tick in ticks]
    return Oracle(float(np.mean(plan)), max(plan), int(np.count_nonzero(np.diff(plan))), initial)


def simulate(spec: ScaleSpec, demand: Demand, setting: Setting, seen: Oracle, decide: Decide = decide) -> Result:
    """What becomes of the requests if ``spec`` decides."""
    run = _Run(demand, setting, seen.initial)
    state, decisions = ScaleState(), []
    ticks = np.arange(FIRST_S, demand.length_s, setting.interval_s)
    for now in ticks:
        run.until(float(now))
        decision = decide(spec, run.measured(), state, float(now))
        state = decision.state
        if decision.action is not Action.NONE:
            run.scale(decision.target_instances)
        decisions.append(decision)
    run.until(demand.length_s)
    hours = run.paid_s()
    run.until(inf)
    waits = np.array(run.waits)
    signs = np.array([_SIGNS[one.action] for one in decisions if one.action is not Action.NONE])
    return Result(
        spec.policy,
        float(np.mean(waits > LATE_S)),
        float(np.quantile(waits, 0.99)),
        float(waits.max()),
        hours / (seen.mean * demand.length_s),
        len(signs),
        int(np.count_nonzero(np.diff(signs))),
        run.peak,
        tuple(decisions),
    )


class _Replica:
    __slots__ = ("active", "begun", "draining", "ended", "ready_at")

    def __init__(self, begun: float, ready_at: float) -> None:
        self.begun, self.ready_at = begun, ready_at
        self.active, self.draining, self.ended = 0, False, inf


class _Run:
    """The replicas, the queue and the clock of one simulation."""

    def __init__(self, demand: Demand, setting: Setting, initial: int) -> None:
        self._t, self._work = demand.t.tolist(), demand.work.tolist()
        self._setting = setting
        self._now, self._next = 0.0, 0
        self._queue: deque[int] = deque()
        self._events: list[tuple[float, int, _Replica, float]] = []  # at, tie, whose, work that ends (0: it is ready)
        self._count = 0
        self._replicas = [_Replica(0.0, 0.0) for _ in range(initial)]
        self._gone: list[_Replica] = []
        self._ready, self._active = initial, 0
        self.waits = [0.0] * len(self._t)
        self.peak = initial
        self._forget()

    def until(self, end: float) -> None:
        """Let time pass; what happens at ``end`` has happened."""
        while True:
            arrival = self._t[self._next] if self._next < len(self._t) else inf
            event = self._events[0][0] if self._events else inf
            if arrival > end < event or arrival == event == inf:
                break
            if event <= arrival:
                at, _, replica, work = heappop(self._events)
                self._pass(at)
                if work:
                    self._completed(replica, work)
                else:
                    self._ready += not replica.draining
            else:
                self._pass(arrival)
                self._queue.append(self._next)
                self._next += 1
            if self._queue:
                self._assign()
        if end < inf:
            self._pass(end)

    def scale(self, target: int) -> None:
        """Start or drain replicas so that ``target`` are there; those that are starting or least busy go first."""
        staying = [one for one in self._replicas if not one.draining]
        for _ in range(target - len(staying)):
            new = _Replica(self._now, self._now + self._setting.startup_s)
            self._replicas.append(new)
            self._push(new.ready_at, new, 0.0)
        for one in sorted(staying, key=lambda one: (one.ready_at <= self._now, one.active))[
            : max(0, len(staying) - target)
        ]:
            one.draining = True
            self._ready -= one.ready_at <= self._now
            self._leave(one)
        self.peak = max(self.peak, target)

    def measured(self) -> Load:
        """What was seen since the last time, by the front alone."""
        staying = [one for one in self._replicas if not one.draining]
        span = self._now - self._since
        load = Load(
            instances=len(staying),
            ready=sum(one.ready_at <= self._now for one in staying),
            slots=self._setting.slots,
            concurrency=self._there / span,
            queue_size=len(self._queue),
            arrived=self._next - self._first,
            completed=len(self._took),
            service_s=float(np.mean(self._took)) if self._took else None,
            response_s=float(np.mean(self._waited)) if self._waited else None,
            error_percent=0.0 if self._took else None,
            memory_percent=MEMORY_PERCENT,
            cpu_percent=100.0 * self._busy / self._capacity if self._capacity else None,
        )
        self._forget()
        return load

    def paid_s(self) -> float:
        """Replica-seconds until now, from the decision to start to the last request drained."""
        return sum(min(one.ended, self._now) - one.begun for one in [*self._replicas, *self._gone])

    def _forget(self) -> None:
        self._since, self._there, self._busy, self._capacity = self._now, 0.0, 0.0, 0.0
        self._first = self._next
        self._took: list[float] = []
        self._waited: list[float] = []

    def _pass(self, at: float) -> None:
        span, self._now = at - self._now, at
        self._there += span * (self._active + len(self._queue))
        self._busy += span * self._active
        self._capacity += span * max(self._active, self._ready * self._setting.slots)

    def _push(self, at: float, replica: _Replica, work: float) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, replica, work))

    def _assign(self) -> None:
        while self._queue:
            replica = min(
                (one for one in self._replicas if one.ready_at <= self._now and not one.draining), key=_active
            )
            if replica.active >= self._setting.slots:
                return
            place = self._queue.popleft()
            self.waits[place] = self._now - self._t[place]
            replica.active += 1
            self._active += 1
            self._waited.append(self.waits[place])
            self._push(self._now + self._work[place], replica, self._work[place])

    def _completed(self, replica: _Replica, work: float) -> None:
        replica.active -= 1
        self._active -= 1
        self._took.append(work)
        self._leave(replica)

    def _leave(self, replica: _Replica) -> None:
        if replica.draining and not replica.active:
            replica.ended = self._now
            self._replicas.remove(replica)
            self._gone.append(replica)


def _active(replica: _Replica) -> int:
    return replica.active
