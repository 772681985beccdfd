"""Where decisions become events: named in the log at once, and kept a moment later by a task in the background.

A kind of event (an action of a replica, or of a service) that comes too often is counted, and one stands for many.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from ragworks.control.behind import Behind
from ragworks.control_protocols import Event, EventLog, Record
from ragworks.policies.replaying import encoded
from ragworks.protocols import Clock

log = structlog.get_logger("ragworks.control")

WINDOW_S, BURST = 60.0, 5
"""Of one kind, five events in a minute are kept, and one more that stands for the rest; while it goes on, that one a
minute: 1,440 a day, of the 10,000 that are kept."""
BURSTS: Mapping[str, int] = {"scale_up": 60, "scale_down": 60}
"""Of acts that are each told apart: a scaler decides once a second at most, and a step to eight times the load takes it
16 acts."""
MAX_CHARACTERS, MAX_REASON = 64 * 1024, 2000

LEVELS: Mapping[str, str] = {
    "service_failed": "error",
    "ejected": "warning",
    "held": "warning",
    "given_up": "warning",
    "panic_began": "warning",
    "load_unknown": "warning",
    "refused": "warning",
    "scale_failed": "warning",
    "server_died": "warning",
    "rejecting_began": "warning",
    "replica_ended": "warning",
    "replica_killed": "warning",
    "replica_restarts": "warning",
}
"""How severe an action is in the log; any other one is an info."""

BY_EACH = ("service_started", "service_failed", "service_stopped", "health_changed")
SCALED = ("scaled", "scale_up", "scale_down", "scale_failed", "load_unknown")
PICKED = ("ejected", "readmitted", "held")
KEPT = ("replica_started", "replica_ended", "replica_killed", "replica_stopped", "replica_restarts", "given_up")
CALLED = ("panic_began", "panic_ended", "rejecting_began", "rejecting_ended")
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "embeddings_service": (*SCALED, *PICKED, *KEPT, *CALLED),
    "document_processor": (*SCALED, "refused", "replica_ended", "replica_killed"),
    "generation_service": PICKED,
    "orchestration_api": ("refused", "server_died"),
}
"""What each service may record, beside what each of them does."""


def actions(service: str) -> tuple[str, ...]:
    """All that ``service`` may record: the bounded values of the label ``action``."""
    return (*BY_EACH, *ACTIONS.get(service, ()))


OnEvent = Callable[[str, str], None]
"""Given service and action. Must return at once and must not raise."""

Kind = tuple[str, str | None, str]


@dataclass(slots=True)
class _Window:
    """What came of one kind since ``began``: how many were kept, and one in place of those that were not."""

    began: float
    kept: int = 0
    held: Event | None = None
    count: int = 0


class Journal:
    """The events of all services. Entering starts the task that keeps them; leaving keeps those that wait.

    Its Records are called on the event loop. ``on_event`` hears of each event, also of those that are only counted.
    """

    def __init__(self, events: EventLog, clock: Clock, on_event: OnEvent = lambda service, action: None) -> None:
        self._events, self._clock, self._on_event = events, clock, on_event
        self._windows: dict[Kind, _Window] = {}
        self._behind = Behind(events.append, clock, "events", before=self._end_windows, due_s=self._due_s)

    async def __aenter__(self) -> Journal:
        await self._behind.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._behind.__aexit__(*exc)
        self._end_windows(everything=True)
        await self.flush()

    def for_service(self, name: str) -> Record:
        """The Record of one service's control loops."""
        return partial(self._note, name)

    async def recent(
        self,
        *,
        service: str | None = None,
        since: float = 0.0,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        """As EventLog says it, with what happened up to now."""
        await self.flush()
        return await self._events.recent(service=service, since=since, after=after, before=before, limit=limit)

    async def flush(self) -> None:
        """Keep what waits, now. Never raises: what cannot be kept waits on."""
        await self._behind.flush()

    def _note(
        self,
        service: str,
        action: str,
        *,
        reason: str,
        replica: str | None = None,
        policy: str = "",
        inputs: Mapping[str, Any] | None = None,
        decision: Any = None,
    ) -> None:
        self._on_event(service, str(action))
        now, kind = self._clock.monotonic(), (service, replica, str(action))
        window = self._windows.get(kind)
        if window is None or (now - window.began >= WINDOW_S and window.held is None):
            window = self._windows[kind] = _Window(now)
        if window.held is not None:
            window.count += 1
            return
        event = _event(self._clock.now(), kind, policy, inputs or {}, decision, reason)
        if window.kept < BURSTS.get(kind[2], BURST):
            window.kept += 1
            self._take(event)
        else:
            window.held, window.count = event, 1
        self._behind.wake()

    def _take(self, event: Event) -> None:
        crash_loop = event.decision.get("crash_loop") is True
        level = "error" if crash_loop else LEVELS.get(event.action, "info")
        getattr(log, level)(
            event.action, action=event.action, service=event.service, replica=event.replica, reason=event.reason,
            policy=event.policy or None, count=event.count,
        )  # fmt: skip
        self._behind.add(event)

    def _due_s(self) -> float | None:
        """Seconds until there is something to do though nothing comes."""
        now = self._clock.monotonic()
        due = [window.began + WINDOW_S - now for window in self._windows.values() if window.held is not None]
        return min(due, default=None)

    def _end_windows(self, *, everything: bool = False) -> None:
        now = self._clock.monotonic()
        for kind, window in list(self._windows.items()):
            if now - window.began < WINDOW_S and not everything:
                continue
            del self._windows[kind]
            if window.held is not None:
                self._take(replace(window.held, at=self._clock.now(), count=window.count))
                # It still goes on: the next ones wait for the end of their minute, too.
                self._windows[kind] = _Window(now, kept=BURSTS.get(kind[2], BURST))


def _event(at: float, kind: Kind, policy: str, inputs: Mapping[str, Any], decision: Any, reason: str) -> Event:
    service, replica, action = kind
    try:
        seen, decided = encoded(inputs), {} if decision is None else encoded(decision)
        if not isinstance(decided, dict):
            decided = {"decision": decided}
        if (size := len(json.dumps([seen, decided]))) > MAX_CHARACTERS:
            policy, seen = "", {"not_kept": f"inputs and decision of {size} characters"}
            decided = {name: one for name, one in decided.items() if not isinstance(one, dict | list | str)}
    except ValueError as error:
        log.error("event_not_encoded", action="event_not_encoded", event_action=action, error=str(error))
        policy, seen, decided = "", {"not_kept": str(error)}, {}
    return Event(0, at, action, service, replica, policy, seen, decided, encoded(reason[:MAX_REASON]))
