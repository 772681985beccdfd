"""Calls a service that has several replicas as if it were one: pick, call, release, and once more elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ragworks import tracing
from ragworks.control.replicas import Outcome, Pick, ReplicaSet, ReplicaView
from ragworks.control.traffic import Traffic
from ragworks.control_protocols import Record, Replica, unrecorded
from ragworks.errors import NotReady, ReplicaGone
from ragworks.policies.calling import Attempts, CallSettings, Fault, again, classify, hedge_after_s
from ragworks.policies.retrying import earned
from ragworks.protocols import Clock
from ragworks.tracing import Attributes, Off, Span
from ragworks.types import Health, Life
from ragworks.waiting import news_or_time

REMEMBERED = 200  # answers of a verb whose times say when the next is slow
LOOK_EVERY = 20  # answers; sorting 200 numbers takes 10 us, which not every call should pay
RETRY_S = 2.0
"""When nothing is known of when a replica comes: a process replica is up again in about that time."""
LOSS_PAUSE_S = 0.05
"""Before a call whose replica was lost goes elsewhere: what ended one may have ended others, which is known by then."""
SPREAD = 0.2  # so that those who were refused together do not come back together

Absence = Callable[[], tuple[str, float]]
"""Why there is no replica, and in how many seconds one is expected."""


def unexplained() -> tuple[str, float]:
    return "none is up", RETRY_S


@dataclass(slots=True)
class _Call:
    """One call on its way: who was tried, and what came of it."""

    verb: str
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    cost: float | None
    attempts: Attempts
    until: float
    tried: set[str] = field(default_factory=set)
    error: Exception | None = None

    def left_s(self, now: float) -> float | None:
        return None if self.until == math.inf else max(0.0, self.until - now)


class Balancer:
    """``handles`` are the replicas by id, whose owner adds to it and to ``replicas``, and then calls ``changed``.

    Works with any number of replicas, none included, which may come and go while calls run. ``record`` hears when
    calls begin to be refused, or to go to replicas that are not well, and when that ends.
    """

    def __init__(
        self,
        service: str,
        replicas: ReplicaSet,
        handles: Mapping[str, Replica],
        clock: Clock,
        rng: Random,
        settings: CallSettings | None = None,
        record: Record = unrecorded,
        absence: Absence = unexplained,
    ) -> None:
        self.service = service
        self._replicas, self._handles, self._clock, self._rng = replicas, handles, clock, rng
        self._settings = settings or CallSettings()
        self._record, self._absence = record, absence
        self._saved = self._settings.budget.most
        self._hedges_saved = 1.0
        self._changed = asyncio.Event()
        self._since: list[float] = []  # when each call that waits for a replica began to
        self._counts = dict.fromkeys(("picks", "retries", "hedges", "steals", "panics", "rejections"), 0)
        self._states = {"panic": False, "rejecting": False}
        self._traffic: dict[str, Traffic] = {}
        self._took: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._slow_s: dict[str, float | None] = {}

    def changed(self) -> None:
        """A replica was added: who waits for one looks again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._traffic = {name: seen for name, seen in self._traffic.items() if name in self._handles}
        for name in self._handles:
            self._relieve(name)

    async def call(
        self,
        verb: str,
        *arguments: Any,
        cost: float | None = None,
        idempotent: bool = True,
        timeout_s: float | None = None,
        **named: Any,
    ) -> Any:
        """What the verb returns at one of the replicas, within ``timeout_s`` altogether.

        ``cost`` is any unit that grows with the work. A call that fails by a replica's fault is sent to another while
        the retry budget allows, if it is ``idempotent`` or was not begun. Raises what ``Replica.call`` raises, and
        NotReady when there is no replica.
        """
        call = _Call(verb, arguments, named, cost, Attempts(idempotent), self._until(timeout_s))
        with self._span(verb):
            while True:
                pick = await self._pick(call)
                try:
                    answer = await self._answer(pick, call)
                except Exception as error:  # whatever it is, another replica may not have it
                    if not self._again(call, error):
                        raise
                    lost = classify(error) is Fault.LOST
                else:
                    self._succeeded()
                    return answer
                if lost:
                    await self._clock.sleep(LOSS_PAUSE_S)

    async def stream(
        self,
        verb: str,
        *arguments: Any,
        cost: float | None = None,
        idempotent: bool = True,
        timeout_s: float | None = None,
        **named: Any,
    ) -> AsyncIterator[Any]:
        """The items of a verb that is an asynchronous generator, all from one replica: there is another attempt only
        before the first. ``timeout_s`` is for each item. Otherwise as ``call``."""
        call = _Call(verb, arguments, named, cost, Attempts(idempotent), math.inf)
        async with aclosing(tracing.streamed(self._span(verb), self._stream(call, timeout_s))) as items:  # type: ignore[type-var]
            async for item in items:
                yield item

    async def _stream(self, call: _Call, timeout_s: float | None) -> AsyncIterator[Any]:
        while True:
            pick = await self._pick(call, timeout_s)
            outcome, began, first = Outcome.CANCELLED, self._clock.monotonic(), True
            try:
                items = self._handle(pick).stream(call.verb, *call.arguments, timeout_s=timeout_s, **call.named)
                async with aclosing(items):  # type: ignore[type-var]  # an asynchronous generator in every runtime
                    async for item in items:
                        first = False
                        yield item
                outcome = Outcome.OK
                self._succeeded()
                return
            except Exception as error:  # whatever it is, another replica may not have it
                outcome = self._blame(pick, call, error)
                if not first or not self._again(call, error):
                    raise
            finally:
                self._release(pick, outcome, began)

    def _span(self, verb: str) -> Span | Off:
        attributes: Attributes = {"ragworks.service": self.service, "ragworks.verb": verb}
        return tracing.span(f"{self.service}.{verb}", attributes, "client")

    def traffic(self, replica_id: str) -> Traffic:
        """What a replica was called for since it came."""
        return self._traffic.get(replica_id, Traffic())

    def stats(self) -> Mapping[str, float]:
        """How many replicas there are and can be called, who waits, and what happened since the start.

        ``queued`` calls wait for a replica or at one beyond its slots, the oldest for ``queue_age_s``.
        ``service_time_s`` and ``unit_time_s`` are absent until they are learnt.
        """
        views = self.views()
        available = sum(view.life is Life.READY and view.health is not Health.UNHEALTHY for view in views)
        now = {"size": len(views), "available": available, "waiting": len(self._since), "retries_saved": self._saved}
        return now | self._queue(views) | self._learnt() | self._counts | {"ejections": self._replicas.ejections}

    def _queue(self, views: tuple[ReplicaView, ...]) -> dict[str, float]:
        own_s = self._clock.monotonic() - min(self._since) if self._since else 0.0
        return {
            "queued": len(self._since) + sum(view.waiting or 0 for view in views),
            "queue_age_s": max(own_s, *(view.queue_age_s or 0.0 for view in views), 0.0),
        }

    def _learnt(self) -> dict[str, float]:
        learnt = {"service_time_s": self._replicas.service_time_s, "unit_time_s": self._replicas.unit_time_s}
        return {name: seconds for name, seconds in learnt.items() if seconds is not None}

    def views(self) -> tuple[ReplicaView, ...]:
        """Each replica as it stands."""
        return self._replicas.views(self._clock.monotonic())

    # picking

    def _until(self, timeout_s: float | None) -> float:
        return math.inf if timeout_s is None else self._clock.monotonic() + timeout_s

    async def _pick(self, call: _Call, timeout_s: float | None = None) -> Pick:
        """A replica that was not tried, if need be one that is still to come. Raises NotReady, or the call's error
        when every replica was tried and none of them is gone."""
        since = self._clock.monotonic()
        until = min(call.until, self._until(timeout_s), since + self._settings.wait_s)
        while (pick := self._choose(call, call.tried)) is None:
            if call.error is not None and classify(call.error) not in (Fault.GONE, Fault.LOST):
                raise call.error
            await self._wait(since, until, call.error)
        self._note("rejecting", False, "a replica took a call")
        return pick

    def _choose(self, call: _Call, tried: set[str]) -> Pick | None:
        now = self._clock.monotonic()
        pick = self._replicas.pick(now, cost=call.cost, tried=tried)
        while pick is not None and pick.replica_id not in self._handles:  # its owner is just letting go of it
            pick.release(now, Outcome.CANCELLED)
            tried = {*tried, pick.replica_id}
            pick = self._replicas.pick(now, cost=call.cost, tried=tried)
        if pick is not None:
            self._counts["picks"] += 1
            tracing.event("pick", {"ragworks.replica_id": pick.replica_id, "ragworks.reason": pick.reason})
            if not tried:  # a second attempt takes what is left, which is no panic
                self._note_panic(pick.reason)
        return pick

    async def _wait(self, since: float, until: float, error: Exception | None) -> None:
        """Return when a replica came. Raises NotReady when none did in time, or too many wait already."""
        left_s = until - self._clock.monotonic()
        if len(self._since) >= self._settings.max_waiting:
            raise self._rejection(f"{len(self._since)} calls wait for one already") from error
        if left_s <= 0:
            raise self._rejection("none came in time") from error
        self._since.append(since)
        try:
            await news_or_time(self._changed, self._clock, left_s)
        finally:
            self._since.remove(since)

    def _rejection(self, what: str) -> NotReady:
        why, retry_after_s = self._absence()
        self._counts["rejections"] += 1
        reason = f"{self.service} has no replica to call: {why}; {what}"
        self._note("rejecting", True, reason)
        return NotReady(reason, retry_after_s * (1.0 + SPREAD * self._rng.random()))

    # calling

    async def _answer(self, pick: Pick, call: _Call) -> Any:
        slow_s = self._slow_s.get(call.verb) if call.attempts.idempotent else None
        if slow_s is not None:
            return await self._race(pick, call, slow_s)
        if call.attempts.idempotent:
            return await self._ask_movable(pick, call)
        return await self._ask(pick, call)

    async def _ask_movable(self, pick: Pick, call: _Call) -> Any:
        """The answer of the picked replica, or of another one that took the call over while it waited there."""
        moved: list[Pick] = []
        began, recall = self._clock.monotonic(), asyncio.timeout(None)

        def move(to: Pick) -> None:
            moved.append(to)
            recall.reschedule(0)  # cancels what waits below, as soon as the loop goes on

        pick.on_moved = move
        try:
            async with recall:
                return await self._ask(pick, call)
        except TimeoutError:
            if not moved:
                raise
            tracing.event("steal", {"ragworks.replica_id": moved[0].replica_id, "ragworks.reason": moved[0].reason})
            return await self._ask(moved[0], call)
        finally:
            for one in moved:  # the answer may have come just then
                self._release(one, Outcome.CANCELLED, began)

    async def _ask(self, pick: Pick, call: _Call) -> Any:
        outcome, began = Outcome.CANCELLED, self._clock.monotonic()
        try:
            left_s = call.left_s(began)
            answer = await self._handle(pick).call(call.verb, *call.arguments, timeout_s=left_s, **call.named)
            outcome = Outcome.OK
            self._time(call.verb, self._clock.monotonic() - began)
            return answer
        except Exception as error:
            outcome = self._blame(pick, call, error)
            raise
        finally:
            self._release(pick, outcome, began)

    def _handle(self, pick: Pick) -> Replica:
        replica = self._handles.get(pick.replica_id)
        if replica is None:
            raise ReplicaGone(f"replica {pick.replica_id} went away before it was called; the call can be repeated")
        return replica

    async def _race(self, pick: Pick, call: _Call, slow_s: float) -> Any:
        """The first answer of the picked replica and, once that is slow, of a second one; the other is cancelled."""
        picks, began = [pick], self._clock.monotonic()
        # All of them end here, or are cancelled here.
        timer = asyncio.ensure_future(self._clock.sleep(slow_s))
        asked = [asyncio.ensure_future(self._ask(pick, call))]
        try:
            await asyncio.wait({timer, asked[0]}, return_when=asyncio.FIRST_COMPLETED)
            if not asked[0].done() and (second := self._hedge(pick, call)):
                picks.append(second)
                asked.append(asyncio.ensure_future(self._ask(second, call)))
            while True:
                done, left = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                answers = [one for one in done if _settles(one)]
                if answers or not left:
                    return (answers or list(done))[0].result()
                asked = list(left)
        finally:
            for one in (timer, *asked):
                one.cancel()
            await asyncio.gather(timer, *asked, return_exceptions=True)
            for taken in picks:  # a task that is cancelled before it begins releases nothing
                self._release(taken, Outcome.CANCELLED, began)

    def _hedge(self, pick: Pick, call: _Call) -> Pick | None:
        if self._hedges_saved < 1:
            return None
        second = self._choose(call, {*call.tried, pick.replica_id})
        if second is not None:
            self._hedges_saved -= 1
            self._counts["hedges"] += 1
        return second

    # counting

    def _blame(self, pick: Pick, call: _Call, error: Exception) -> Outcome:
        fault = classify(error)
        if fault is Fault.NONE:
            return Outcome.OK
        call.tried.add(pick.replica_id)
        if fault in (Fault.GONE, Fault.LOST):
            # Until its owner removes it, or a probe finds that the loss was of something behind it.
            self._replicas.note_health(pick.replica_id, Health.UNHEALTHY, self._clock.monotonic())
        return Outcome.FAILED

    def _again(self, call: _Call, error: Exception) -> bool:
        fault = classify(error)
        call.attempts = call.attempts.after(fault)
        left_s = call.until - self._clock.monotonic()
        decision = again(self._settings, fault, call.attempts, left_s=left_s, saved=self._saved)
        call.error = error
        self._saved -= decision.cost
        self._counts["retries"] += decision.again
        if decision.again:
            tracing.event("retry", {"error.type": tracing.error_type(error), "ragworks.reason": decision.reason})
        return decision.again

    def _succeeded(self) -> None:
        self._saved = earned(self._settings.budget, self._saved)
        self._hedges_saved = min(10.0, self._hedges_saved + self._settings.hedge.share)

    def _release(self, pick: Pick, outcome: Outcome, began: float) -> None:
        now = self._clock.monotonic()
        pick.release(now, outcome)
        if outcome is not Outcome.CANCELLED and pick.replica_id in self._handles:
            seen = self.traffic(pick.replica_id)
            self._traffic[pick.replica_id] = seen.plus(now - began, failed=outcome is Outcome.FAILED)
        self._relieve(pick.replica_id)

    def _relieve(self, replica_id: str) -> None:
        """Let a replica take over calls that wait at others, as many as it has slots free."""
        while replica_id in self._handles and self._replicas.steal(replica_id, self._clock.monotonic()):
            self._counts["steals"] += 1

    def _time(self, verb: str, seconds: float) -> None:
        if self._settings.hedge.quantile <= 0:
            return
        took = self._took[verb]
        took.append(seconds)
        if len(took) < REMEMBERED or not self._counts["picks"] % LOOK_EVERY:
            self._slow_s[verb] = hedge_after_s(self._settings.hedge, took)

    def _note_panic(self, reason: str) -> None:
        panic = reason.startswith("panic")
        self._counts["panics"] += panic
        if panic or not reason.startswith("trial"):  # a trial of an ejected replica says nothing of the others
            self._note("panic", panic, reason)

    def _note(self, state: str, on: bool, reason: str) -> None:
        """Record when a state begins and ends, not each call in it."""
        if self._states[state] is not on:
            self._states[state] = on
            self._record(f"{state}_began" if on else f"{state}_ended", reason=reason, inputs=self.stats())


def _settles(task: asyncio.Future[Any]) -> bool:
    """Whether a call that is asked twice needs no other answer than this: a good one, or that it is itself to blame."""
    error = task.exception()
    return error is None or (isinstance(error, Exception) and classify(error) is Fault.NONE)
