"""The seams of the control plane: what runs a replica, and where its decisions are kept.

Read downwards: what a replica is made of, the replica, the place where it lives, replicas that live elsewhere, the
record of decisions, and that of questions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from ragworks.policies.digesting import Question
from ragworks.protocols import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One copy of a service: ``factory(*arguments)`` makes it, in the place where it will live.

    ``factory`` must be importable by its name and ``arguments`` picklable, wherever a runtime may take them.
    ``implementation`` and ``version`` say which code runs there, and are shown beside the replica.
    """

    service: str
    factory: Callable[..., Service]
    arguments: tuple[Any, ...] = ()
    implementation: str = "default"
    version: str = "1"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a replica takes, or None where it shares a process and cannot be told apart.

    ``cpu_percent`` is of one core since it was last asked (None the first time), ``memory_bytes`` resident.
    """

    cpu_percent: float | None = None
    memory_bytes: int | None = None


class Outcome(StrEnum):
    """How a call ended: FAILED is the replica's fault, CANCELLED says nothing of it but how long it took so far."""

    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Replica(Protocol):
    """A service that runs somewhere; its verbs are called by name.

    ``id`` is unique for the life of the server; ``pid`` is the process it lives in. ``slots`` is how many calls it
    works on at once; what comes beyond waits there, up to ``max_calls`` in flight, where NotReady refuses more.
    """

    id: str
    spec: ReplicaSpec
    pid: int
    slots: int

    async def call(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """What the verb returns; arrays arrive read-only. Cancelling cancels it there, too, as does the timeout.

        Raises what the verb raises, TimeoutError, and ReplicaLost when the replica ended before it answered: whether
        the verb took effect is then unknown. It did not when that is a ReplicaGone.
        """
        ...

    def stream(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> AsyncIterator[Any]:
        """The items of a verb that is an asynchronous generator, one by one; closing the iterator early closes it
        there. ``timeout_s`` is for the wait for each item. Raises as ``call`` does."""
        ...

    def usage(self) -> Usage: ...

    async def ended(self) -> str:
        """Return when the replica is gone, whoever ended it, with what is known of why."""
        ...

    async def stop(self, drain_s: float) -> None:
        """Refuse new calls, let those in flight end within ``drain_s``, then ``shutdown`` there and let go of it.

        Harmless when it is gone already, and when called twice.
        """
        ...

    async def kill(self) -> None:
        """End it now, whatever it does; returns when it is gone."""
        ...


class Runtime(Protocol):
    """A place where replicas live. Leaving its context ends those that are left."""

    async def start(self, spec: ReplicaSpec, replica_id: str) -> Replica:
        """A replica whose ``initialize`` has returned. Cancelling leaves nothing behind.

        Raises what ``initialize`` raises, or ReplicaLost when it ended before it was ready.
        """
        ...


class EndpointFailed(Exception):
    """One endpoint gave no usable answer. ``retry_after_s`` is set if it named a time.

    ``suspect``: it failed inside, which may be the request's doing. ``misconfigured``: somebody has to mend a setting,
    so nothing is gained by leaving it alone for long.
    """

    def __init__(
        self, reason: str, retry_after_s: float | None = None, *, suspect: bool = False, misconfigured: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after_s, self.suspect, self.misconfigured = retry_after_s, suspect, misconfigured


def endpoint_id(url: str) -> str:
    """Host, port and path: what tells endpoints apart and holds no secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path.rstrip('/')}"


class Endpoints(Protocol):
    """The base URLs at which a remote model is served: replicas that others run.

    A request is tried at one after the other at once, and at none before the time that it named. ``ask`` raises
    EndpointFailed where the endpoint is to blame; whatever else it raises is the answer. ``cost`` grows with the work.
    """

    async def call(self, ask: Callable[[str], Awaitable[T]], *, cost: float | None = None) -> T:
        """What ``ask`` returns for one of the URLs. Raises EndpointUnavailable when none gave an answer."""
        ...

    def stream(self, ask: Callable[[str], AsyncGenerator[T, None]], *, cost: float | None = None) -> AsyncIterator[T]:
        """What ``ask`` yields, all from one URL: another is asked only before the first item. Raises as ``call``."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """One decision of the control plane: ``policy`` given ``inputs`` answers ``decision``, every time.

    ``inputs`` and ``decision`` are JSON. ``id`` grows; ``at`` is seconds since the epoch. ``policy`` is empty where
    something merely happened (a replica died), and then ``inputs`` says what was seen. Where it came too often to keep
    each, ``count`` says for how many like it this one stands.
    """

    id: int
    at: float
    action: str
    service: str
    replica: str | None
    policy: str
    inputs: Mapping[str, Any]
    decision: Mapping[str, Any]
    reason: str
    count: int = 1


class Record(Protocol):
    """Told of every decision of one service's control loops. Returns at once and never raises.

    ``policy`` names the pure function that decided, ``inputs`` its arguments by name as they were passed, with the seed
    in place of a ``Random``, so that ``policy(**inputs)`` can be asked again. Without a policy, ``inputs`` is what was
    seen.
    """

    def __call__(
        self,
        action: str,
        *,
        reason: str,
        replica: str | None = None,
        policy: str = "",
        inputs: Mapping[str, Any] | None = None,
        decision: Any = None,
    ) -> None: ...


def unrecorded(action: str, **_: Any) -> None:
    """A Record that keeps nothing."""


class EventLog(Protocol):
    """Where events are kept: a database of its own, of bounded size."""

    async def append(self, events: Sequence[Event]) -> None:
        """Add events; their ids are given here. The oldest go when there are too many. Raises StorageFull."""
        ...

    async def recent(
        self,
        *,
        service: str | None = None,
        since: float = 0.0,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        """Events not older than ``since``, oldest first: the newest ``limit`` of them, or of those whose id is below
        ``before``; or with ``after`` the first ``limit`` whose id is above it."""
        ...


Rating = Literal["up", "down"]


class QueryLog(Protocol):
    """Where questions are kept, of bounded number and age. What cannot be written raises StorageFull."""

    async def append(self, questions: Sequence[Question]) -> None:
        """Add questions; one whose key is there already stays as it was. The oldest go when there are too many."""
        ...

    async def rate(self, collection: str, key: str, rating: Rating, comment: str | None) -> bool:
        """Note what somebody thought of the answer, in place of what was noted before; False if there is no such."""
        ...

    async def since(self, at: float) -> Sequence[Question]:
        """All that are not older, oldest first."""
        ...
