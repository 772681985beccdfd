"""Who of a Ray Serve deployment gets a request: our balancing in the place of Serve's.

Serve takes this module to every process that calls the deployment by its text, and keeps one router there for each
deployment; so it holds no state of its own, and imports little.
"""

from __future__ import annotations

import importlib
import time
from asyncio import Future
from collections import Counter
from collections.abc import Collection
from random import Random
from typing import Any, Protocol

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ragworks.control_protocols import Outcome
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.types import Health


class Pick(Protocol):
    """A replica that was picked for one call, counted until it is released."""

    @property
    def replica_id(self) -> str: ...

    def release(self, now: float, outcome: Outcome) -> None: ...


class Table(Protocol):
    """What the router needs of ``control.replicas.ReplicaSet``, whose docstrings hold."""

    def add(self, replica_id: str, now: float, *, slots: int = 1) -> None: ...

    def remove(self, replica_id: str) -> None: ...

    def note_health(self, replica_id: str, health: Health, now: float) -> None: ...

    def note_usage(self, replica_id: str, cpu_percent: float | None, memory_percent: float | None) -> None: ...

    def note_failures(self, replica_id: str, failures: float, now: float) -> None: ...

    def pick(self, now: float, *, cost: float | None = None, tried: Collection[str] = ()) -> Pick | None: ...


class _Attempt:
    """One choice for one request, which Serve may make anew: ``future`` is where it awaits the replica."""

    def __init__(self, pick: Pick, future: Future[RunningReplica]) -> None:
        self.pick, self.future, self.accepted = pick, future, False


class BalancedRouter(RequestRouter):  # type: ignore[misc]  # Ray carries no types that strict checks could use
    """Asks the table, tells it when a request has ended, and passes on what the replicas report of themselves.

    A request counts from the moment it is chosen for: until ``on_request_routed`` milliseconds go by, in which others
    would follow it to the same replica.
    """

    def initialize_state(self, *, table: str, balance: dict[str, Any], ejecting: dict[str, Any], slots: int) -> None:
        module, _, name = table.partition(":")
        make = getattr(importlib.import_module(module), name)
        self._table: Table = make(BalanceSettings(**balance), EjectSettings(**ejecting), Random())
        self._slots = slots
        self._attempts: dict[str, list[_Attempt]] = {}
        self._heard: dict[str, dict[str, Any]] = {}
        self._answered: Counter[str] = Counter()  # since the replica's last report

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is None:
            return [list(candidate_replicas)]
        pending_request.routing_context.should_backoff = True  # else Serve asks again at once, for ever
        now = time.monotonic()
        request = pending_request.metadata.internal_request_id
        full = [one for one in self._attempts.get(request, ()) if one.future is pending_request.future]
        for attempt in full:
            self._end(request, attempt, now, Outcome.CANCELLED)
        tried = [one.pick.replica_id for one in full]
        cost = pending_request.kwargs.get("cost")
        pick = self._table.pick(now, cost=cost, tried=tried) or self._table.pick(now, cost=cost)
        chosen = [one for one in candidate_replicas if pick and one.replica_id.unique_id == pick.replica_id]
        if pick and not chosen:
            pick.release(now, Outcome.CANCELLED)
        elif pick:
            attempt = _Attempt(pick, pending_request.future)
            self._attempts.setdefault(request, []).append(attempt)
            pending_request.future.add_done_callback(lambda _: self._assigned(request, attempt))
        return [chosen]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        for attempt in self._attempts.get(pending_request.metadata.internal_request_id, ()):
            attempt.accepted |= attempt.future is pending_request.future

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Also of a request that the replica refused, having too many: then it was never routed."""
        mine = [one for one in self._attempts.get(internal_request_id, ()) if _is_of(one, replica_id)]
        if mine:
            attempt = max(mine, key=lambda one: one.accepted)
            self._answered[attempt.pick.replica_id] += attempt.accepted
            outcome = Outcome.OK if attempt.accepted else Outcome.CANCELLED
            self._end(internal_request_id, attempt, time.monotonic(), outcome)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        now = time.monotonic()
        ids = {one.replica_id.unique_id for one in replicas}
        for gone in self._heard.keys() - ids:
            self._forget(gone)
        for replica in replicas:
            replica_id = replica.replica_id.unique_id
            if replica_id not in self._heard:
                self._table.add(replica_id, now, slots=min(self._slots, replica.max_ongoing_requests))
                self._heard[replica_id] = {}
            self._listen(replica_id, replica.routing_stats, now)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._forget(replica_id.unique_id)

    def _listen(self, replica_id: str, report: dict[str, Any], now: float) -> None:
        before = self._heard[replica_id]
        if not report or report == before:
            return
        self._heard[replica_id] = report
        self._table.note_usage(replica_id, report["cpu_percent"], report["memory_percent"])
        self._table.note_health(replica_id, Health(report["health"]), now)
        served = report["served"] - before.get("served", 0)
        if served:  # by all callers; of the answers that went to this one, as large a part will have been errors
            share = (report["failed"] - before.get("failed", 0)) / served
            self._table.note_failures(replica_id, share * self._answered.pop(replica_id, 0), now)

    def _assigned(self, request: str, attempt: _Attempt) -> None:
        """The request has got a replica, or was given up."""
        future = attempt.future
        if future.cancelled() or not _is_of(attempt, future.result().replica_id):
            self._end(request, attempt, time.monotonic(), Outcome.CANCELLED)

    def _end(self, request: str, attempt: _Attempt, now: float, outcome: Outcome) -> None:
        attempt.pick.release(now, outcome)
        left = [one for one in self._attempts.pop(request, ()) if one is not attempt]
        if left:
            self._attempts[request] = left

    def _forget(self, replica_id: str) -> None:
        self._heard.pop(replica_id, None)
        self._answered.pop(replica_id, None)
        self._table.remove(replica_id)


def _is_of(attempt: _Attempt, replica_id: ReplicaID) -> bool:
    return bool(attempt.pick.replica_id == replica_id.unique_id)
