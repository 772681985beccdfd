"""The endpoints of a remote model as replicas of the service that asks it: picked, ejected and shown as others are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from ragworks import tracing
from ragworks.control.replicas import Outcome, Pick, ReplicaSet, ReplicaView
from ragworks.control_protocols import EndpointFailed, Record, endpoint_id, unrecorded
from ragworks.errors import EndpointUnavailable
from ragworks.policies import holding
from ragworks.policies.holding import Held
from ragworks.policies.retrying import RetrySettings
from ragworks.protocols import Clock
from ragworks.reports import ReplicaReport
from ragworks.types import Health, Life

T = TypeVar("T")

BACKOFF = RetrySettings(base_delay_s=0.5, max_delay_s=30.0)
MENDED_WITHIN_S = 2.0
"""The longest hold of an endpoint that is set up wrongly: nothing recovers there by being left alone, and once the key
is mended, a question that waits 5 s must not fail by the old reason."""
TRIAL_S = 0.5
"""When to look again while one request tries an endpoint that comes back."""
UNHEALTHY_AFTER = 3


class EndpointSet:
    """Endpoints, and Replicas of ``service``. ``replicas`` is empty and becomes its own.

    Each call in flight counts as ahead of the next one: how many an endpoint works on at once is not known.
    """

    balanced = True

    def __init__(
        self,
        service: str,
        model: str,
        urls: Sequence[str],
        replicas: ReplicaSet,
        clock: Clock,
        rng: Random,
        *,
        backoff: RetrySettings = BACKOFF,
        record: Record = unrecorded,
    ) -> None:
        self._service, self._model = service, model
        self._urls: Mapping[str, str] = {endpoint_id(url): url.rstrip("/") for url in urls}
        self._replicas, self._clock, self._rng, self._record = replicas, clock, rng, record
        self._backoff = backoff
        self._held = dict.fromkeys(self._urls, Held())
        self._said = dict.fromkeys(self._urls, "")
        self._last_failure = ""
        self._counts = dict.fromkeys(("picks", "retries", "rejections"), 0)
        for name in self._urls:
            replicas.add(name, clock.monotonic())

    async def call(self, ask: Callable[[str], Awaitable[T]], *, cost: float | None = None) -> T:
        tried: dict[str, EndpointFailed] = {}
        while True:
            pick, outcome = self._pick(tried, cost), Outcome.CANCELLED
            try:
                answer = await ask(self._urls[pick.replica_id])
                outcome = self._answered(pick.replica_id)
                return answer
            except EndpointFailed as failure:
                outcome = self._failed(pick.replica_id, failure)
                tried[pick.replica_id] = failure
            finally:  # an answer that blames the request says nothing of how fast the endpoint works: CANCELLED
                pick.release(self._clock.monotonic(), outcome)

    async def stream(
        self, ask: Callable[[str], AsyncGenerator[T, None]], *, cost: float | None = None
    ) -> AsyncIterator[T]:
        tried: dict[str, EndpointFailed] = {}
        while True:
            pick, outcome, first = self._pick(tried, cost), Outcome.CANCELLED, True
            try:
                async with aclosing(ask(self._urls[pick.replica_id])) as items:
                    async for item in items:
                        first = False
                        yield item
                outcome = self._answered(pick.replica_id)
                return
            except EndpointFailed as failure:
                outcome = self._failed(pick.replica_id, failure)
                tried[pick.replica_id] = failure
                if not first:
                    raise self._unavailable(tried) from failure
            finally:
                pick.release(self._clock.monotonic(), outcome)

    def _pick(self, tried: Mapping[str, EndpointFailed], cost: float | None) -> Pick:
        pick = self._replicas.pick(self._clock.monotonic(), cost=cost, tried=tried)
        if pick is None:
            self._counts["rejections"] += 1
            raise self._unavailable(tried)
        self._counts["picks"] += 1
        self._counts["retries"] += bool(tried)
        said: tracing.Attributes = {"ragworks.replica_id": pick.replica_id, "ragworks.reason": pick.reason}
        tracing.event("retry" if tried else "pick", said)
        return pick

    def _unavailable(self, tried: Mapping[str, EndpointFailed]) -> EndpointUnavailable:
        now = self._clock.monotonic()
        free_at = self._replicas.free_at(now)
        return EndpointUnavailable(
            self._last_failure,
            TRIAL_S if free_at is None else free_at - now,
            asked=all(failure.retry_after_s is not None for failure in tried.values()),
            suspect=bool(tried) and all(failure.suspect for failure in tried.values()),
        )

    def _answered(self, name: str) -> Outcome:
        self._held[name] = replace(self._held[name], failures=0)
        self._said[name] = ""
        return Outcome.OK

    def _failed(self, name: str, failure: EndpointFailed) -> Outcome:
        now, seed, before = self._clock.monotonic(), self._rng.getrandbits(32), self._held[name]
        settings = self._backoff_after(failure)
        inputs: dict[str, Any] = {"settings": settings, "held": before, "named_s": failure.retry_after_s, "now": now}
        decision = holding.hold(**inputs, rng=Random(seed))
        self._held[name], self._said[name], self._last_failure = decision.held, str(failure), str(failure)
        self._replicas.hold(name, decision.held.until)
        if before.until <= now:
            self._record(
                "held",
                reason=f"{failure}; {decision.reason}",
                replica=name,
                policy="holding.hold",
                inputs={**inputs, "rng": seed},
                decision=decision,
            )
        return Outcome.FAILED

    def _backoff_after(self, failure: EndpointFailed) -> RetrySettings:
        most_s = self._backoff.max_delay_s
        if failure.suspect:  # it is up, and looking for the text that makes it fail takes several tries
            most_s = self._backoff.base_delay_s
        elif failure.misconfigured:
            most_s = min(most_s, MENDED_WITHIN_S)
        return replace(self._backoff, max_delay_s=most_s)

    def stats(self) -> Mapping[str, float]:
        """As a Balancer's, as far as it applies."""
        return {"size": self.size, "ejections": self._replicas.ejections, **self._counts}

    def views(self) -> tuple[ReplicaView, ...]:
        """Each endpoint as it stands; one that is held is shown as ejected. How many calls it takes at once it does not
        tell, so none is known to wait there."""
        now = self._clock.monotonic()
        return tuple(
            replace(
                view,
                life=Life.EJECTED if self._held[view.id].until > now else view.life,
                waiting=None,
                queue_age_s=None,
            )
            for view in self._replicas.views(now)
        )

    # as the replicas of a service

    @property
    def size(self) -> int:
        return len(self._urls)

    @property
    def bounds(self) -> tuple[int, int]:
        return self.size, self.size

    async def start(self) -> None:
        """Others run them: one that is not up yet is left out until it is."""

    async def stop(self) -> None: ...

    async def scale(self, instances: int) -> None:
        """There are as many as the settings name."""

    def hopeful(self) -> bool:
        return True

    def health(self) -> tuple[Health, str]:
        """DEGRADED while one is left out, UNHEALTHY when each failed several times in a row."""
        out = [one for one in self.reports() if one.note or one.life is not Life.READY]
        if not out:
            return Health.HEALTHY, ""
        dead = all(held.failures >= UNHEALTHY_AFTER for held in self._held.values())
        notes = "; ".join(sorted({one.note for one in out if one.note}))
        why = f"{self.size - len(out)} of {self.size} endpoints answer{notes and ': '}{notes}"
        return (Health.UNHEALTHY if dead else Health.DEGRADED), why

    def reports(self) -> tuple[ReplicaReport, ...]:
        return tuple(self._report(view) for view in self.views())

    def _report(self, view: ReplicaView) -> ReplicaReport:
        report = ReplicaReport(
            id=view.id,
            pid=None,
            status=view.health if view.life is Life.READY else view.life,
            version=self._model,
            implementation="endpoint",
            life=view.life,
            note=self._said[view.id],
        )
        return view.measured(report)
