"""The loop that keeps a service at the size it needs: measure, decide, apply, record."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Protocol

import structlog

from ragworks.control_protocols import Record, unrecorded
from ragworks.policies.forecasting import Foreseen
from ragworks.policies.scaling import Action, Load, ScaleDecision, ScaleSpec, ScaleState, decide
from ragworks.policies.scaling_load import foreseen
from ragworks.policies.scaling_settings import check
from ragworks.protocols import Clock

log = structlog.get_logger("ragworks.autoscaler")

SAMPLE_S = 1.0


class Scaled(Protocol):
    """What is scaled: ``size`` is how many replicas there should be, those that still start included."""

    @property
    def size(self) -> int: ...

    async def scale(self, instances: int) -> None:
        """Returns when new replicas have been tried, or those that are too many have drained."""
        ...


class Meter(Protocol):
    def sample(self, now: float) -> object:
        """Look at the service; called every second."""
        ...

    def measured(self, now: float, instances: int) -> Load | None:
        """The load since the last time, or None if it cannot be told."""
        ...


class Autoscaler:
    """Scales ``group`` while it is entered; leaving ends the loop, and waits for no action that is under way.

    A new replica or a drain takes its time, so actions run beside the loop, one at a time; of those that come meanwhile
    only the latest is left to do. ``record`` hears of each action, of each that failed, and of measuring that failed.
    """

    def __init__(
        self, service: str, spec: ScaleSpec, group: Scaled, meter: Meter, clock: Clock, record: Record = unrecorded
    ) -> None:
        check(spec)
        self._service, self._spec, self._group, self._meter = service, spec, group, meter
        self._clock, self._record = clock, record
        self._state = ScaleState()
        self._target: int | None = None
        self._blind = False
        self._watching: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None
        self.last: ScaleDecision | None = None
        self.pinned = False

    async def __aenter__(self) -> Autoscaler:
        self.start()
        return self

    def start(self) -> None:
        # Awaited by __aexit__.
        self._watching = asyncio.create_task(self._watch(), name=f"scale-{self._service}")

    def pin(self) -> None:
        """Leave the size to whoever asked for one; an action that is under way ends first, and none follows."""
        self.pinned, self._target, self.last = True, None, None

    def unpin(self) -> None:
        """Decide again, as one that has seen nothing of the service yet."""
        if self.pinned:
            self.pinned, self._state = False, ScaleState()

    @property
    def target(self) -> int:
        """How many replicas there should be once what was decided is done."""
        return self._group.size if self._target is None else self._target

    def report(self) -> dict[str, Any]:
        """``mode`` is auto, or pinned by hand; the rest is what was decided last, if anything."""
        if self.last is None:
            return {"mode": "pinned" if self.pinned else "auto"}
        last = self.last
        wanted = None if last.seen is None else last.target_instances  # nothing measured, nothing wanted
        return {
            "mode": "auto",
            "action": last.action,
            "target_instances": wanted,
            "reason": last.reason,
            "forecast": None if self.forecast is None else asdict(self.forecast),
        }

    @property
    def forecast(self) -> Foreseen | None:
        """Of the load, in calls at once; None while nothing is known, or while nobody decides by it."""
        return None if self.pinned else foreseen(self._spec, self._state)

    async def __aexit__(self, *exc: object) -> None:
        tasks = [task for task in (self._watching, self._applying) if task is not None]
        self._watching = self._applying = self._target = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        return self._watching is not None and not self._watching.done()

    def tick(self) -> ScaleDecision:
        """Measure, decide, and begin to apply."""
        now = self._clock.monotonic()
        seen = self._measured(now)
        inputs = {"spec": self._spec, "seen": seen, "state": self._state, "now": now}
        decision = decide(self._spec, seen, self._state, now)
        self._state, self.last = decision.state, decision
        if decision.action is not Action.NONE:
            self._record(
                str(decision.action),
                reason=decision.reason,
                policy="scaling.decide",
                inputs=inputs,
                decision=decision,
            )
            self._apply(decision.target_instances)
        return decision

    async def _watch(self) -> None:
        due = self._clock.monotonic() + self._spec.monitoring_interval
        while True:
            now = self._clock.monotonic()
            due = min(due, now + self._spec.monitoring_interval)  # also on a clock that was set back
            if due > now:
                await self._clock.sleep(min(SAMPLE_S, due - now))
                self._sampled()
                continue
            due = now + self._spec.monitoring_interval
            try:
                if self.pinned:
                    self._measured(self._clock.monotonic())  # nobody decides about what went on meanwhile
                else:
                    self.tick()
            except Exception:  # a service that nobody scales any more would be noticed too late
                log.exception("scaling_failed", action="scaling_failed", service=self._service)

    def _sampled(self) -> None:
        try:
            self._meter.sample(self._clock.monotonic())
        except Exception as error:
            self._note_blind(error)

    def _measured(self, now: float) -> Load | None:
        try:
            seen = self._meter.measured(now, self.target)
        except Exception as error:  # whatever it is, no data is a decision of its own
            self._note_blind(error)
            return None
        self._blind = False
        return seen

    def _note_blind(self, error: Exception) -> None:
        """Said once, until it can be measured again."""
        if not self._blind:
            self._record("load_unknown", reason=f"the load cannot be measured: {str(error) or type(error).__name__}")
        self._blind = True

    def _apply(self, target: int) -> None:
        self._target = target
        if self._applying is None or self._applying.done():
            # Awaited by __aexit__.
            self._applying = asyncio.create_task(self._reach(), name=f"scale-{self._service}-to")

    async def _reach(self) -> None:
        """Until what is wanted is there: it may change while an action is under way."""
        while self._target is not None:
            target = self._target
            try:
                await self._group.scale(target)
            except Exception as error:  # the loop sees what came of it, and decides again
                log.debug("scale_failed", service=self._service, exc_info=True)
                self._record("scale_failed", reason=f"to {target}: {str(error) or type(error).__name__}")
            if self._target == target:
                self._target = None
