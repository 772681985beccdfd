"""The replicas that a caller may choose from: what is known of each, who gets the next call, who is left out.

No clock and no event loop: ``now`` is an argument, monotonic seconds. Server and simulator use the same class.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median
from typing import Any

from ragworks.control_protocols import Outcome as Outcome
from ragworks.control_protocols import Record, unrecorded
from ragworks.policies.balancing import STRATEGIES, Asked, BalanceSettings
from ragworks.policies.digesting import quantile
from ragworks.policies.ejecting import Action, EjectSettings, Seen, Standing, judge
from ragworks.policies.loads import Expectation, Load, average, begin, current_pace, end, learn, waiting_s
from ragworks.policies.stealing import Queue, StealSettings, choose
from ragworks.reports import ReplicaReport
from ragworks.types import Health, Life

UNKNOWN_S = 1.0
"""Expected of a call before one has ended; compared only with others of which as little is known."""

SHARES_S = 0.05
"""How long shares of picks hold that grow over seconds: a pick among many new replicas need not work them out."""

ANSWERS = 200
"""Good answers of a replica of which quantiles are known: ten of them are beyond the p95."""

PANIC = ("", "panic: only ejected replicas are left", "panic: only unhealthy replicas are left")
"""The reason of a pick by tier; the first has that of its strategy."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as it stands: times in seconds, usage in per cent, ``error_rate`` as a share; None where nothing is
    known. ``pace`` is how many times longer it takes than expected of a call, as learnt. ``waiting`` calls were sent
    to it beyond its slots, the oldest ``queue_age_s`` ago: 0 where none waits, None where its slots are
    not known. ``p50_response_time`` and ``p95_response_time`` are of its last good answers."""

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
    waiting: int | None = None
    queue_age_s: float | None = None
    p50_response_time: float | None = None
    p95_response_time: float | None = None

    def measured(self, report: ReplicaReport) -> ReplicaReport:
        """The report with what is known of the calls to its replica."""
        return replace(
            report,
            active_connections=self.active_connections,
            avg_response_time=self.avg_response_time,
            p50_response_time=self.p50_response_time,
            p95_response_time=self.p95_response_time,
            queue_size=self.waiting,
            queue_age_s=self.queue_age_s,
            error_rate=self.error_rate,
            cpu_usage=self.cpu_usage,
            memory_usage=self.memory_usage,
        )


@dataclass(slots=True, eq=False)
class _Replica:
    """What a set keeps of a replica beside its load. ``steady_at`` is when its slow start ends, ``ejected_at`` when
    the picks began that tell of it now."""

    load: Load
    counted_at: float
    steady_at: float
    health: Health = Health.HEALTHY
    draining: bool = False
    standing: Standing = field(default_factory=Standing)
    ejected_at: float = -math.inf
    calls: float = 0.0
    errors: float = 0.0
    errors_in_row: int = 0
    unjudged: int = 0
    waiting: deque[Pick] = field(default_factory=deque)
    took: deque[float] = field(default_factory=lambda: deque(maxlen=ANSWERS))

    @property
    def out(self) -> bool:
        return self.standing.until is not None or self.health is Health.UNHEALTHY


@dataclass(slots=True, eq=False)
class Pick:
    """A replica that was picked, and why. Whoever holds it must release it when the call ends, however it ends.

    ``on_moved`` is told when another replica takes the call over, with the pick that stands for it from then on; a call
    for which it is None stays.
    """

    reason: str
    _of: ReplicaSet
    _replica: _Replica
    _cost: float | None
    _expected_s: float
    _again: bool
    _picked_at: float
    on_moved: Callable[[Pick], None] | None = None
    _began_at: float | None = None
    _released: bool = False

    @property
    def replica_id(self) -> str:
        return self._replica.load.replica_id

    def release(self, now: float, outcome: Outcome) -> None:
        """The call has ended. Exactly once: a second changes nothing."""
        if not self._released:
            self._released = True
            self._of._end(self, now, outcome)


class ReplicaSet:
    """Not for several threads. ``record`` hears of every ejection and readmission; a pick is no event. ``observe`` gets
    the seconds that each good answer took."""

    def __init__(
        self,
        settings: BalanceSettings,
        ejecting: EjectSettings,
        rng: Random,
        record: Record = unrecorded,
        observe: Callable[[float], None] = lambda seconds: None,
        stealing: StealSettings | None = None,
    ) -> None:
        self._stealing = stealing or StealSettings()
        self._settings, self._ejecting, self._rng, self._record = settings, ejecting, rng, record
        self._observe = observe
        self._strategy = STRATEGIES[settings.strategy]
        self._replicas: dict[str, _Replica] = {}
        self._expectation = Expectation()
        self._turn = 0
        self._stale = True
        self.ejections = 0
        self._tiers: list[list[Load]] = []
        self._ejected: list[_Replica] = []
        self._partial: list[_Replica] = []
        self._shares: dict[str, float] = {}
        self._shares_until = -math.inf
        self._held: dict[str, float] = {}

    def add(self, replica_id: str, now: float, *, slots: int = 1) -> None:
        """Healthy until told otherwise, as fast as the others until it shows, and started slowly beside them."""
        if replica_id in self._replicas:
            raise ValueError(f"there is a replica {replica_id} already; ids are unique for the life of a server")
        load = Load(replica_id, slots=slots, turn=self._turn)
        if self._replicas:
            load.pace = self._usual_pace()
        self._replicas[replica_id] = _Replica(load, now, now + self._settings.slow_start_s)
        self._stale = True

    def drain(self, replica_id: str) -> None:
        """It gets no more picks; those that are out end in their own time. Harmless if it is not there."""
        replica = self._replicas.get(replica_id)
        if replica:
            replica.draining = self._stale = True

    def remove(self, replica_id: str) -> None:
        """Forget it; a pick that is still out may be released all the same. Harmless if it is not there."""
        self._replicas.pop(replica_id, None)
        self._held.pop(replica_id, None)
        self._stale = True

    def hold(self, replica_id: str, until: float) -> None:
        """No pick before ``until``, not even when there is no other; then one at a time until a call ends well.

        For a replica that says when it can be asked again. Never shortens an earlier hold.
        """
        if replica_id in self._replicas:
            self._held[replica_id] = max(until, self._held.get(replica_id, until))

    def free_at(self, now: float) -> float | None:
        """When the first may be picked as far as holds say; None if that is when a call in flight ends."""
        barred = self._barred(now)
        times = [
            self._held.get(name, now)
            for name, replica in self._replicas.items()
            if not replica.draining and (name not in barred or self._held[name] > now)
        ]
        return max(now, min(times)) if times else None

    def note_health(self, replica_id: str, health: Health, now: float) -> None:
        """What the health checker found. Who was unhealthy starts slowly again."""
        replica = self._replicas.get(replica_id)
        if replica and replica.health is not health:
            if replica.health is Health.UNHEALTHY:
                replica.steady_at = now + self._settings.slow_start_s
            replica.health = health
            self._stale = True

    def note_usage(self, replica_id: str, cpu_percent: float | None, memory_percent: float | None) -> None:
        replica = self._replicas.get(replica_id)
        if replica:
            replica.load.cpu_percent, replica.load.memory_percent, replica.load.used = cpu_percent, memory_percent, 0

    def note_failures(self, replica_id: str, failures: float, now: float) -> None:
        """So many of its calls that were released as OK had failed after all, as some runtimes hear only later."""
        replica = self._replicas.get(replica_id)
        if replica and failures > 0:
            replica.errors = min(replica.errors + failures, replica.calls)
            replica.load.error_rate = replica.errors / replica.calls if replica.calls else 0.0
            self._judge(replica, now)

    def pick(self, now: float, *, cost: float | None = None, tried: Collection[str] = ()) -> Pick | None:
        """Who gets a call of ``cost``: any number that grows with its work, such as input tokens.

        None: nobody can be picked. Never who drains, nor who is in ``tried``, since it failed this call already. The
        healthy and the degraded first, where they are none the ejected, then the unhealthy. The first attempt at a call
        may be the trial of a replica whose ejection is over.
        """
        if self._stale:
            self._sort()
        self._turn += 1
        barred = self._barred(now) if self._held else ()
        due = self._due(now, barred) if (self._ejected or self._held) and not tried else None
        if due:
            what = "an ejected" if due.out else "a held"
            return self._begin(due, now, cost, False, f"trial of {what} replica")
        if barred:
            tried = {*tried, *barred}
        for tier, panic in zip(self._tiers, PANIC, strict=True):
            loads: Sequence[Load] = [load for load in tier if load.replica_id not in tried] if tried else tier
            if not panic and self._partial:
                loads = self._thinned(loads, now)
            if loads:
                asked = Asked(now, self._turn, self._expectation.of(cost), self._expectation.seconds)
                load = self._strategy(loads, asked, self._rng) if len(loads) > 1 else loads[0]
                again = self._turn - load.turn > load.patience * len(loads)
                reason = panic or self._settings.strategy
                return self._begin(self._replicas[load.replica_id], now, cost, again, reason)
        return None

    def steal(self, replica_id: str, now: float) -> str | None:
        """Let a replica that is well and has a free slot take over a call that waits at another, if it waits long.

        The reason, or None where nothing was taken over. A call is moved once at most. Who drains, is ejected or
        unhealthy is helped too.
        """
        queues = [one for one in self._replicas.values() if one.waiting]
        thief = self._replicas.get(replica_id)
        if not queues or thief is None or not self._may_steal(thief, now):
            return None
        last = {one.load.replica_id: pick for one in queues if (pick := _movable(one))}
        decision = choose(self._stealing, [_queue(pick, now) for pick in last.values()])
        if decision.replica_id is None:
            return None
        taken = last[decision.replica_id]
        taken._released = True
        self._leave(taken, now)
        moved = self._begin(thief, now, taken._cost, False, decision.reason)
        if taken.on_moved:
            taken.on_moved(moved)
        return decision.reason

    def _may_steal(self, replica: _Replica, now: float) -> bool:
        load = replica.load
        well = replica.health is Health.HEALTHY and not replica.draining and not replica.out
        well = well and not replica.errors_in_row  # who fails fast is always free
        return well and load.active < load.slots and load.replica_id not in self._barred(now)

    def views(self, now: float) -> tuple[ReplicaView, ...]:
        """Every replica that is not removed, in the order they were added."""
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
                error_rate=replica.errors / replica.calls if replica.calls else 0.0,
                pace=replica.load.pace,
                waiting=len(replica.waiting),
                queue_age_s=now - replica.waiting[0]._picked_at if replica.waiting else 0.0,
                p50_response_time=quantile(replica.took, 0.5),
                p95_response_time=quantile(replica.took, 0.95),
            )
            for replica in self._replicas.values()
        )

    @property
    def service_time_s(self) -> float | None:
        """Seconds that a call of the usual cost takes at the median replica; None before one has ended."""
        return self._expectation.seconds * self._usual_pace() or None

    @property
    def unit_time_s(self) -> float | None:
        """Seconds that each further unit of cost adds there; None while no two costs have told them apart."""
        learnt = self._expectation
        if learnt.variance <= 0.0 or learnt.covariance <= 0.0:
            return None
        return learnt.covariance / learnt.variance * self._usual_pace()

    def _usual_pace(self) -> float:
        """Pace and expectation are learnt from the same answers: only their product is in seconds."""
        return median(replica.load.pace for replica in self._replicas.values()) if self._replicas else 1.0

    def _sort(self) -> None:
        """Candidates by tier: once after a change, so that a pick need not look at the state of every replica."""
        serving = [replica for replica in self._replicas.values() if not replica.draining]
        well = [replica for replica in serving if not replica.out]
        self._ejected = [replica for replica in serving if replica.out and replica.health is not Health.UNHEALTHY]
        unhealthy = [replica for replica in serving if replica.health is Health.UNHEALTHY]
        self._tiers = [[replica.load for replica in tier] for tier in (well, self._ejected, unhealthy)]
        self._partial = [one for one in well if one.health is Health.DEGRADED or one.steady_at > -math.inf]
        self._shares_until = -math.inf
        self._stale = False

    def _thinned(self, loads: Sequence[Load], now: float) -> Sequence[Load]:
        """Without those that sit out this pick, so that each has its share of picks, whatever the strategy."""
        if now >= self._shares_until:
            shares = {replica.load.replica_id: self._share(replica, now) for replica in self._partial}
            most = 1.0 if len(shares) < len(self._tiers[0]) else max(shares.values())
            self._shares = {one: share / most for one, share in shares.items() if share < most}
            self._shares_until = now + SHARES_S
        shares = self._shares
        if not shares:
            return loads
        draw = self._rng.random
        return [one for one in loads if one.replica_id not in shares or draw() < shares[one.replica_id]] or loads

    def _share(self, replica: _Replica, now: float) -> float:
        settings = self._settings
        share = settings.degraded_share if replica.health is Health.DEGRADED else 1.0
        if replica.steady_at > now:
            return share * max(settings.least_share, 1.0 - (replica.steady_at - now) / settings.slow_start_s)
        if replica.steady_at > -math.inf:
            replica.steady_at, self._stale = -math.inf, True
        return share

    def _due(self, now: float, barred: Collection[str]) -> _Replica | None:
        """Who was ejected or held until now, and has no call by which to show that it is back."""
        held = [self._replicas[name] for name in self._held]
        for replica in (*self._ejected, *(one for one in held if not one.draining)):
            until = replica.standing.until
            well = replica.health is not Health.UNHEALTHY and (until is None or until <= now)
            if well and not replica.load.active and replica.load.replica_id not in barred:
                return replica
        return None

    def _barred(self, now: float) -> Collection[str]:
        """Who is held, or was and has the one call that tries it."""
        return {name for name, until in self._held.items() if until > now or self._replicas[name].load.active}

    def _begin(self, replica: _Replica, now: float, cost: float | None, again: bool, reason: str) -> Pick:
        load = replica.load
        expected_s = self._expectation.of(cost) or UNKNOWN_S
        pick = Pick(reason, self, replica, cost, expected_s, again, now)
        load.active += 1
        load.used += 1
        load.turn = self._turn
        load.backlog += expected_s
        if load.busy < load.slots:
            pick._began_at = now
            begin(load, expected_s, now)
        else:
            replica.waiting.append(pick)
        return pick

    def _leave(self, pick: Pick, now: float) -> None:
        """The call is no longer in flight there; the next in line has its slot."""
        replica, load = pick._replica, pick._replica.load
        load.active -= 1
        load.backlog = load.backlog - pick._expected_s if load.active else 0.0
        if pick._began_at is None:
            replica.waiting.remove(pick)
        else:
            end(load, pick._expected_s, pick._began_at)
            if replica.waiting:
                following = replica.waiting.popleft()
                following._began_at = now
                begin(load, following._expected_s, now)

    def _end(self, pick: Pick, now: float, outcome: Outcome) -> None:
        replica, load = pick._replica, pick._replica.load
        self._leave(pick, now)
        if outcome is Outcome.OK and self._held.get(load.replica_id, math.inf) <= now:
            del self._held[load.replica_id]
        self._learn(pick, now, outcome)
        if outcome is not Outcome.CANCELLED and pick._picked_at >= replica.ejected_at:
            self._count(replica, now - pick._picked_at, outcome, now)

    def _learn(self, pick: Pick, now: float, outcome: Outcome) -> None:
        """From good answers how long calls take; from others only that they took longer than they should have."""
        load = pick._replica.load
        took_s = now - (pick._picked_at if pick._began_at is None else pick._began_at)
        expected_s = self._expectation.of(pick._cost)
        if outcome is not Outcome.OK and (not expected_s or took_s <= load.pace * expected_s):
            return
        if expected_s:
            best = min(one.load.pace for one in self._replicas.values()) if pick._again and self._replicas else 1.0
            learn(load, took_s / expected_s, again=pick._again, best=best)
        if outcome is Outcome.OK:
            self._observe(now - pick._picked_at)
            self._expectation.observe(pick._cost, took_s / max(load.pace, 1e-9))

    def _count(self, replica: _Replica, response_s: float, outcome: Outcome, now: float) -> None:
        """Errors and answers, fading; a judgement where it may make a difference, and of latency now and then."""
        failed = outcome is Outcome.FAILED
        faded = math.exp(min(0.0, replica.counted_at - now) / self._ejecting.window_s)
        # On trial every call counts until the judgement, however rare the calls are.
        faded = faded if replica.standing.until is None else 1.0
        replica.counted_at = now
        replica.calls = replica.calls * faded + 1.0
        replica.errors = replica.errors * faded + failed
        replica.errors_in_row = replica.errors_in_row + 1 if failed else 0
        # What fades never reaches zero, and adaptive need not divide by almost one for ever.
        replica.load.error_rate = replica.errors / replica.calls if replica.errors > 0.01 else 0.0
        if not failed:
            average(replica.load, response_s)
            replica.took.append(response_s)
        replica.unjudged += 1
        if failed or replica.standing.until is not None or replica.unjudged >= self._ejecting.min_calls:
            replica.unjudged = 0
            self._judge(replica, now)

    def _judge(self, replica: _Replica, now: float) -> None:
        if replica.draining or self._replicas.get(replica.load.replica_id) is not replica:
            return
        serving = [one for one in self._replicas.values() if not one.draining]
        peers = [one.load.response_s for one in serving if one is not replica and one.load.response_s is not None]
        inputs: dict[str, Any] = {
            "settings": self._ejecting,
            "seen": Seen(replica.calls, replica.errors, replica.errors_in_row, replica.load.response_s),
            "standing": replica.standing,
            "peers_response_s": peers,
            "out": sum(one.out for one in serving),
            "replicas": len(serving),
            "now": now,
        }
        verdict = judge(**inputs)
        if verdict.action is Action.KEEP:
            return
        replica.standing = verdict.standing
        replica.calls = replica.errors = replica.load.error_rate = 0.0
        replica.errors_in_row = 0
        if verdict.action is Action.EJECT:
            self.ejections += 1
            replica.ejected_at, replica.load.response_s = now, None
            replica.took.clear()
        else:
            replica.steady_at = now + self._settings.slow_start_s
        self._stale = True
        self._record(
            "ejected" if verdict.action is Action.EJECT else "readmitted",
            reason=verdict.reason,
            replica=replica.load.replica_id,
            policy="ejecting.judge",
            inputs=inputs,
            decision=verdict,
        )


def _movable(replica: _Replica) -> Pick | None:
    """The newest in its queue that may go elsewhere: a replica works on the oldest first."""
    return next((pick for pick in reversed(replica.waiting) if pick.on_moved), None)


def _queue(pick: Pick, now: float) -> Queue:
    load = pick._replica.load
    pace = current_pace(load, now)
    wait_s = max(0.0, waiting_s(load, now, pace) - pace * pick._expected_s / load.slots)
    return Queue(load.replica_id, wait_s, now - pick._picked_at)


def _life(replica: _Replica) -> Life:
    if replica.draining:
        return Life.DRAINING
    return Life.READY if replica.standing.until is None else Life.EJECTED
