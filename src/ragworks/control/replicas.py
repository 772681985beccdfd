"""The replicas that a caller may choose from: what is known of each, who gets the next call, who is left out.

No clock and no event loop: ``now`` is an argument, monotonic seconds. The server and the simulator use the same class.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from ragworks.control_protocols import Record, unrecorded
from ragworks.policies.balancing import (
    MOST_PATIENCE,
    PATIENCE,
    STRATEGIES,
    Asked,
    BalanceSettings,
    Load,
)
from ragworks.policies.ejecting import Action, EjectSettings, Seen, Standing, judge
from ragworks.policies.pacing import Expectation
from ragworks.types import Health, Life

AVERAGED = 20.0
"""Answers over which the average response time and the error rate fade."""

KNOWN = 10.0
"""Answers over which a pace fades: three in a row of another pace move it by a quarter."""

SLOW = 1.5
"""Times the best pace, above which a replica that was tried counts as still slow."""


class Outcome(StrEnum):
    """How a call ended: FAILED is the replica's fault, CANCELLED says nothing about it."""

    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as it stands: ``avg_response_time`` in seconds, usage in per cent, None where nothing is known."""

    id: str
    life: Life
    health: Health
    slots: int
    active_connections: int
    avg_response_time: float | None
    cpu_usage: float | None
    memory_usage: float | None
    error_rate: float
    pace: float


@dataclass(slots=True, eq=False)
class _Replica:
    load: Load
    added_at: float
    health: Health = Health.HEALTHY
    draining: bool = False
    standing: Standing = field(default_factory=Standing)
    errors_in_row: int = 0
    calls: float = 0.0
    errors: float = 0.0
    counted_at: float = 0.0
    steady_at: float = 0.0
    waiting: deque[Pick] = field(default_factory=deque)

    def seen(self) -> Seen:
        return Seen(self.calls, self.errors, self.errors_in_row, self.load.response_s)


class Pick:
    """A replica that was picked, and the count that goes down when the call ends."""

    __slots__ = (
        "_cost",
        "_expected_s",
        "_of",
        "_picked_at",
        "_released",
        "_replica",
        "_started_at",
        "_trial",
        "reason",
    )

    def __init__(
        self,
        of: ReplicaSet,
        replica: _Replica,
        now: float,
        cost: float | None,
        expected_s: float,
        trial: bool,
        reason: str,
    ) -> None:
        self._of, self._replica, self._picked_at, self._cost = of, replica, now, cost
        self._expected_s, self._trial, self.reason = expected_s, trial, reason
        self._started_at: float | None = None
        self._released = False

    @property
    def replica_id(self) -> str:
        return self._replica.load.replica_id

    def release(self, now: float, outcome: Outcome) -> None:
        """The call has ended. Exactly once; a second is harmless."""
        if not self._released:
            self._released = True
            self._of._released(self, now, outcome)


class ReplicaSet:
    """Synchronous; not for several threads. ``record`` hears of ejections and readmissions."""

    def __init__(
        self, settings: BalanceSettings, ejecting: EjectSettings, rng: Random, record: Record = unrecorded
    ) -> None:
        self._settings, self._ejecting, self._rng, self._record = settings, ejecting, rng, record
        self._strategy = STRATEGIES[settings.strategy]
        self._replicas: dict[str, _Replica] = {}
        self._expectation = Expectation()
        self._turn = 0
        self._stale = True
        self.ejections = 0
        self._tiers: list[list[Load]] = []
        self._out: list[_Replica] = []
        self._partial: list[_Replica] = []

    def add(self, replica_id: str, now: float, *, slots: int = 1) -> None:
        """Known from now on, healthy until it is told otherwise, and started slowly beside others."""
        if replica_id in self._replicas:
            raise ValueError(f"replica {replica_id} is there already")
        replica = _Replica(Load(replica_id, slots=slots, turn=self._turn), now, counted_at=now)
        replica.steady_at = now + self._settings.slow_start_s
        self._replicas[replica_id] = replica
        self._stale = True

    def drain(self, replica_id: str) -> None:
        """No more picks; those that are out end in their own time."""
        self._replicas[replica_id].draining = True
        self._stale = True

    def remove(self, replica_id: str) -> None:
        """Forgotten; a pick that is still out may be released all the same."""
        self._replicas.pop(replica_id, None)
        self._stale = True

    def note_health(self, replica_id: str, health: Health, now: float) -> None:
        replica = self._replicas.get(replica_id)
        if replica and replica.health is not health:
            replica.health = health
            self._stale = True

    def note_usage(self, replica_id: str, cpu_percent: float | None, memory_percent: float | None) -> None:
        replica = self._replicas.get(replica_id)
        if replica:
            replica.load.cpu_percent, replica.load.memory_percent, replica.load.used = cpu_percent, memory_percent, 0

    def pick(self, now: float, *, cost: float | None = None, tried: Collection[str] = ()) -> Pick | None:
        """Who gets a call of ``cost`` (any unit that grows with its work, such as input tokens), and why.

        None: nobody can be picked. Nobody of ``tried``, which failed this call already. The healthy and the degraded
        first, then the ejected, then the unhealthy; who drains never. A first attempt may be a trial of a replica
        whose ejection is over.
        """
        if self._stale:
            self._sort()
        self._turn += 1
        usual_s = self._expectation.seconds
        expected_s = self._expectation.of(cost) or 0.0
        if self._out and not tried:
            due = self._due(now)
            if due:
                return self._picked(due, now, cost, expected_s, False, "trial of an ejected replica")
        for place, tier in enumerate(self._tiers):
            loads: Sequence[Load] = [load for load in tier if load.replica_id not in tried] if tried else tier
            if not place and self._partial:
                loads = self._thinned(loads, now)
            if not loads:
                continue
            if len(loads) == 1:
                load = loads[0]
            else:
                load = self._strategy(loads, Asked(now, self._turn, expected_s, usual_s), self._rng)
            trial = self._turn - load.turn > load.patience
            reason = _REASONS[place] or self._settings.strategy
            return self._picked(self._replicas[load.replica_id], now, cost, expected_s, trial, reason)
        return None

    def views(self, now: float) -> tuple[ReplicaView, ...]:
        return tuple(
            ReplicaView(
                id=replica.load.replica_id,
                life=_life(replica),
                health=replica.health,
                slots=replica.load.slots,
                active_connections=replica.load.active,
                avg_response_time=replica.load.response_s,
                cpu_usage=replica.load.cpu_percent,
                memory_usage=replica.load.memory_percent,
                error_rate=replica.load.error_rate,
                pace=replica.load.pace,
            )
            for replica in self._replicas.values()
        )

    def _sort(self) -> None:
        """The candidates by tier; once per change, so that a pick need not look at every replica's state."""
        serving = [replica for replica in self._replicas.values() if not replica.draining]
        well = [replica for replica in serving if replica.health is not Health.UNHEALTHY]
        self._out = [replica for replica in serving if replica.standing.until is not None]
        self._tiers = [
            [replica.load for replica in well if replica.standing.until is None],
            [replica.load for replica in well if replica.standing.until is not None],
            [replica.load for replica in serving if replica.health is Health.UNHEALTHY],
        ]
        self._partial = [
            replica
            for replica in well
            if replica.standing.until is None and (replica.health is Health.DEGRADED or replica.steady_at > -math.inf)
        ]
        self._stale = False

    def _thinned(self, loads: Sequence[Load], now: float) -> Sequence[Load]:
        """Without those that are left out this time, so that each has its share of picks in the long run."""
        shares: dict[str, float] = {}
        for replica in self._partial:
            share = self._share(replica, now)
            if share < 1.0:
                shares[replica.load.replica_id] = share
        if not shares:
            return loads
        most = max(shares.get(load.replica_id, 1.0) for load in loads) if loads else 1.0
        return [
            load
            for load in loads
            if shares.get(load.replica_id, 1.0) >= most or self._rng.random() * most < shares[load.replica_id]
        ]

    def _share(self, replica: _Replica, now: float) -> float:
        settings = self._settings
        share = settings.degraded_share if replica.health is Health.DEGRADED else 1.0
        if replica.steady_at > now:
            share *= max(settings.least_share, 1.0 - (replica.steady_at - now) / settings.slow_start_s)
        elif replica.steady_at > -math.inf:
            replica.steady_at = -math.inf
            self._stale = True
        return share

    def _due(self, now: float) -> _Replica | None:
        for replica in self._out:
            until = replica.standing.until
            idle = not replica.load.active and replica.health is not Health.UNHEALTHY
            if idle and until is not None and until <= now:
                return replica
        return None

    def _picked(
        self, replica: _Replica, now: float, cost: float | None, expected_s: float, trial: bool, reason: str
    ) -> Pick:
        load = replica.load
        pick = Pick(self, replica, now, cost, expected_s or 1.0, trial, reason)
        load.active += 1
        load.used += 1
        load.turn = self._turn
        load.backlog += pick._expected_s
        if load.busy < load.slots:
            _start(load, pick, now)
        else:
            replica.waiting.append(pick)
        return pick

    def _released(self, pick: Pick, now: float, outcome: Outcome) -> None:
        replica, load = pick._replica, pick._replica.load
        load.active -= 1
        started = pick._started_at
        _end(load, pick)
        if started is None:
            replica.waiting.remove(pick)
        elif replica.waiting:
            _start(load, replica.waiting.popleft(), now)
        if not load.active:  # sums of floats drift; here they are known
            load.backlog = load.serving = load.since = load.parts = load.parts_since = 0.0
        if outcome is Outcome.CANCELLED:
            return
        self._count(replica, now - pick._picked_at, outcome, now)
        if outcome is Outcome.OK:
            self._learn(pick, now - (pick._picked_at if started is None else started))
        if outcome is Outcome.FAILED or replica.standing.until is not None or load.response_s is None:
            self._judge(replica, now)

    def _count(self, replica: _Replica, response_s: float, outcome: Outcome, now: float) -> None:
        load = replica.load
        faded = math.exp(min(0.0, replica.counted_at - now) / self._ejecting.window_s)
        replica.counted_at = now
        replica.calls = replica.calls * faded + 1.0
        failed = outcome is Outcome.FAILED
        replica.errors = replica.errors * faded + failed
        replica.errors_in_row = replica.errors_in_row + 1 if failed else 0
        load.error_rate = replica.errors / replica.calls if replica.errors > 0.01 else 0.0
        if not failed:
            if load.response_s is None:
                load.response_s = response_s
            else:
                load.response_s += (response_s - load.response_s) / AVERAGED

    def _learn(self, pick: Pick, took_s: float) -> None:
        load = pick._replica.load
        expected_s = self._expectation.of(pick._cost)
        if expected_s:
            if pick._trial:
                load.known = min(load.known, 1.0)
            load.known = min(load.known + 1.0, KNOWN)
            load.pace += (took_s / expected_s - load.pace) / load.known
            if pick._trial:
                best = min(one.load.pace for one in self._replicas.values())
                load.patience = min(load.patience * 2, MOST_PATIENCE) if load.pace > SLOW * best else PATIENCE
        self._expectation.observe(pick._cost, took_s / max(load.pace, 1e-9))

    def _judge(self, replica: _Replica, now: float) -> None:
        if self._replicas.get(replica.load.replica_id) is not replica or replica.draining:
            return
        peers = [
            one.load.response_s
            for one in self._replicas.values()
            if one is not replica and one.load.response_s is not None
        ]
        members = [one for one in self._replicas.values() if not one.draining]
        inputs: dict[str, Any] = {
            "settings": self._ejecting,
            "seen": replica.seen(),
            "standing": replica.standing,
            "peers_response_s": peers,
            "ejected": sum(one.standing.until is not None for one in members),
            "replicas": len(members),
            "now": now,
        }
        verdict = judge(**inputs)
        if verdict.action is Action.KEEP:
            return
        replica.standing = verdict.standing
        replica.calls = replica.errors = 0.0
        replica.errors_in_row = 0
        replica.load.error_rate = 0.0
        self.ejections += verdict.action is Action.EJECT
        if verdict.action is Action.READMIT:
            replica.steady_at = now + self._settings.slow_start_s
        self._stale = True
        self._record(
            verdict.action,
            reason=verdict.reason,
            replica=replica.load.replica_id,
            policy="ejecting.judge",
            inputs=inputs,
            decision=verdict,
        )


_REASONS = ("", "panic: only ejected replicas are left", "panic: only unhealthy replicas are left")


def _life(replica: _Replica) -> Life:
    if replica.draining:
        return Life.DRAINING
    return Life.READY if replica.standing.until is None else Life.EJECTED


def _start(load: Load, pick: Pick, now: float) -> None:
    pick._started_at = now
    part = 1.0 / pick._expected_s
    load.busy += 1
    load.serving += pick._expected_s
    load.since += now
    load.parts += part
    load.parts_since += now * part


def _end(load: Load, pick: Pick) -> None:
    load.backlog -= pick._expected_s
    if pick._started_at is None:
        return
    part = 1.0 / pick._expected_s
    load.busy -= 1
    load.serving -= pick._expected_s
    load.since -= pick._started_at
    load.parts -= part
    load.parts_since -= pick._started_at * part
