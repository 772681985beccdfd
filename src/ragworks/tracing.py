"""Traces: what a request did, step by step, across processes and through the job queue.

``entry`` begins a span at a door of the server (a request, an attempt at a document), ``span`` one below whatever is
under way. While nothing is, as when traces are off, that is a look at one variable. Nothing here knows OpenTelemetry:
``exporting.py`` does, and is imported only when traces are on.
"""

from __future__ import annotations

import re
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from random import getrandbits
from time import time_ns
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

T = TypeVar("T")
Items = TypeVar("Items", bound=AsyncIterator[Any])

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = dict[str, str | bool | int | float | Sequence[str]]

# A later version may have more behind; 00 has not, and ff is none.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class Ended(NamedTuple):
    """What is left of a span: plain values, which travel between processes. ``parent_id`` is 0 at the top of a trace.

    ``error`` is a code or the name of a class, never a message: that may quote a text. Times are nanoseconds since the
    epoch.
    """

    name: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: Sequence[tuple[str, int, Attributes]]
    error: str


Into = Callable[[Ended], None]
"""Takes each span that ended, at once, and never raises."""


class Tracer(Protocol):
    """Where the spans of this process go. ``captures_text``: whether they may hold questions, passages and answers."""

    captures_text: bool

    def sampled(self, parent: Context | None, trace_id: int, name: str, attributes: Attributes) -> bool:
        """Whether a trace is kept that begins here, or comes from elsewhere as ``parent`` says."""
        ...

    def keep(self, span: Ended) -> None:
        """Returns at once and never raises."""
        ...


class Context:
    """A span that something may belong to, here or elsewhere; ``into`` is None if it was not begun here."""

    __slots__ = ("into", "sampled", "span_id", "trace_id")
    end_ns = 0

    def __init__(self, trace_id: int, span_id: int, sampled: bool, into: Into | None = None) -> None:
        self.trace_id, self.span_id, self.sampled, self.into = trace_id, span_id, sampled, into


class Span(Context):
    """A step under way. As a context manager it is current within, and ends behind, by its error if there is one."""

    __slots__ = ("_token", "attributes", "end_ns", "error", "events", "kind", "name", "parent_id", "start_ns")

    def __init__(
        self, name: str, kind: Kind, trace_id: int, parent_id: int, sampled: bool, into: Into, attributes: Attributes
    ) -> None:
        self.trace_id, self.span_id, self.sampled, self.into = trace_id, getrandbits(64) or 1, sampled, into
        self.name, self.kind, self.parent_id, self.attributes = name, kind, parent_id, attributes
        self.events: list[tuple[str, int, Attributes]] = []
        self.error, self.end_ns, self.start_ns = "", 0, time_ns()
        self._token: Token[Context | None] | None = None

    def set(self, name: str, value: str | bool | int | float | Sequence[str]) -> None:
        self.attributes[name] = value

    def event(self, name: str, attributes: Attributes) -> None:
        self.events.append((name, time_ns(), attributes))

    def fail(self, error: str) -> None:
        """It did not come to its end as it should, which nobody raised."""
        self.error = error

    def end(self, error: BaseException | None = None) -> None:
        """Harmless when it has ended."""
        if self.end_ns:
            return
        if error is not None:
            self._failed(error)
        self.end_ns = time_ns()
        if self.sampled and self.into is not None:
            self.into(self.left())

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, CancelledError | GeneratorExit):
            self.attributes["ragworks.cancelled"] = True
        else:
            self.error = error_type(error)

    def left(self) -> Ended:
        return Ended(
            self.name, self.kind, self.trace_id, self.span_id, self.parent_id, self.start_ns, self.end_ns,
            self.attributes, self.events, self.error,
        )  # fmt: skip

    @contextmanager
    def current(self) -> Iterator[None]:
        """What is begun within belongs to it, which goes on behind."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
        self.end(error)


class Off:
    """A span that is not kept."""

    __slots__ = ()

    def set(self, name: str, value: object) -> None: ...

    def event(self, name: str, attributes: Attributes) -> None: ...

    def fail(self, error: str) -> None: ...

    def end(self, error: BaseException | None = None) -> None: ...

    def __enter__(self) -> Off:
        return self

    def __exit__(self, *_: object) -> None: ...


OFF = Off()

_current: ContextVar[Context | None] = ContextVar("ragworks_span", default=None)
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Send the spans of this process there from now on; None switches traces off."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    return _tracer is not None


def captures_text() -> bool:
    """Whether a span may hold questions, passages and answers."""
    return _tracer is not None and _tracer.captures_text


def current() -> Context | None:
    """The span under way. A task that outlives the span that it was begun in belongs to none."""
    found = _current.get()
    return None if found is None or found.end_ns else found


def resume(context: Context | None) -> None:
    """What is begun in this task from now on belongs there, until a span that was entered before is left."""
    _current.set(context)


def span(name: str, attributes: Attributes | None = None, kind: Kind = "internal") -> Span | Off:
    """A step of the trace under way, if one is."""
    return below(_current.get(), name, attributes, kind)


def below(
    parent: Context | None, name: str, attributes: Attributes | None = None, kind: Kind = "internal"
) -> Span | Off:
    """A step of ``parent``, whoever is at work."""
    if parent is None or parent.end_ns or not parent.sampled or parent.into is None:
        return OFF
    return _below(parent, parent.into, name, attributes, kind)


def entry(
    name: str, attributes: Attributes | None = None, kind: Kind = "internal", parent: Context | None = None
) -> Span | Off:
    """A span at a door: of the trace under way, else of that which ``parent`` names, else of a new one."""
    if current() is not None:
        return span(name, attributes, kind)
    if _tracer is None:
        return OFF
    attributes = {} if attributes is None else attributes
    trace_id = parent.trace_id if parent else getrandbits(128) or 1
    sampled = _tracer.sampled(parent, trace_id, name, attributes)
    return Span(name, kind, trace_id, parent.span_id if parent else 0, sampled, _tracer.keep, attributes)


@contextmanager
def shared(name: str, parents: Iterable[Context | None], attributes: Attributes) -> Iterator[Span | Off]:
    """One piece of work for several at once: a span below each, so that no trace lacks it; the first is current."""
    waiting = (one for one in parents if one is not None and one.sampled and not one.end_ns)
    wanted = {one: one.into for one in waiting if one.into is not None}
    if not wanted:
        yield OFF
        return
    (first, into), *others = wanted.items()
    work = _below(first, into, name, attributes, "internal")
    try:
        with work:
            yield work
    finally:
        for other, into in others:
            span_id = getrandbits(64) or 1
            into(work.left()._replace(trace_id=other.trace_id, parent_id=other.span_id, span_id=span_id))


def streamed(opened: Span | Off, items: Items) -> Items:
    """The items, with the span current while the next is made, and not while somebody else has the turn; it ends with
    them."""
    return items if isinstance(opened, Off) else cast(Items, _streamed(opened, items))


async def _streamed(opened: Span, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    error: BaseException | None = None
    try:
        while True:
            with opened.current():
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item
    except BaseException as raised:
        error = raised
        raise
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
        opened.end(error)


def note(name: str, value: str | bool | int | float) -> None:
    """An attribute of the span under way, if one is."""
    found = current()
    if isinstance(found, Span):
        found.set(name, value)


def event(name: str, attributes: Attributes) -> None:
    """Something that happened to the span under way, if one is."""
    found = current()
    if isinstance(found, Span) and found.sampled:
        found.event(name, attributes)


def traceparent() -> str:
    """The span under way as W3C's header has it; empty if there is none."""
    found = current()
    return "" if found is None else f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.sampled):02x}"


def parsed(header: str | None) -> Context | None:
    """The span that a ``traceparent`` names; None if it is no such thing."""
    found = _TRACEPARENT.fullmatch(header or "")
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return Context(trace_id, span_id, bool(flags & 1))


Carried = tuple[int, int]


def carried() -> Carried | None:
    """The span under way, for another process, whose spans come back to ``adopt``; None if they would not be kept."""
    found = current()
    return (found.trace_id, found.span_id) if found is not None and found.sampled else None


@contextmanager
def continued(carried: Carried | None, into: Into) -> Iterator[None]:
    """In that other process: spans go ``into``."""
    token = _current.set(Context(*carried, sampled=True, into=into) if carried else None)
    try:
        yield
    finally:
        _current.reset(token)


def adopt(spans: Iterable[tuple[Any, ...]]) -> None:
    """Keep what another process made of the span under way, which sent plain tuples: a pickle of Ended names its class
    and calls it, at twice the time."""
    found = current()
    if found is not None and found.into is not None:
        for one in spans:
            found.into(Ended._make(one))


def error_type(error: BaseException) -> str:
    return str(getattr(error, "code", "")) or type(error).__name__


def ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: each line names the span that it was written in."""
    found = current()
    if found is not None:
        event.setdefault("trace_id", f"{found.trace_id:032x}")
        event.setdefault("span_id", f"{found.span_id:016x}")
    return event


def _below(parent: Context, into: Into, name: str, attributes: Attributes | None, kind: Kind) -> Span:
    return Span(name, kind, parent.trace_id, parent.span_id, True, into, {} if attributes is None else attributes)
