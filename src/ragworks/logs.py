"""Where log events go: standard error, one line per state change, each named by a stable ``action``.

A line of a request names it (``request_id``), a line of an attempt at a document names that (``job_id``, ``task_id``,
``document_id``), and where traces are on each names its span; also in a replica, whose lines its parent takes over.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ragworks import tracing

if TYPE_CHECKING:
    from ragworks.settings import LogSettings

NOT_TAKEN = frozenset({"timestamp", "replica", "self", "level", "event", "method_name"})
"""Fields of a replica's line that the parent writes itself, or that its library knows as something else."""

Carried = dict[str, str]
_from_caller: ContextVar[Carried] = ContextVar("ragworks_log", default={})  # noqa: B039  # never written to


def configure(settings: LogSettings) -> None:
    """Send events of ``settings.level`` and above to stderr: for people on a terminal, as JSON elsewhere.

    Tracebacks carry no values of variables: those may hold a document's text.
    """
    for_people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    _configure(settings.level, for_people=for_people)


def configure_child() -> None:
    """In a replica: lines that its parent can take over, if its service brought the library that writes them."""
    if "structlog" in sys.modules:
        _configure_once()


def _configure(level: str, *, for_people: bool) -> None:
    import structlog

    as_fields = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _merged,
            tracing.ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info if for_people else as_fields,
            *([_readable] if for_people else []),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if for_people
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Asked for each event: stderr may have been replaced since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def carried() -> Carried:
    """What each line of this task says, for another process."""
    import structlog

    bound = structlog.contextvars.get_contextvars()
    return _from_caller.get() | {name: value for name, value in bound.items() if isinstance(value, str)}


@contextmanager
def continued(carried: Carried) -> Iterator[None]:
    """In that other process: its lines say the same."""
    token = _from_caller.set(carried)
    try:
        yield
    finally:
        _from_caller.reset(token)


def report(event: str, error: Exception) -> None:
    """In a replica, which brings the library in only when it has something to say: an error, with its traceback."""
    import structlog

    _configure_once()
    structlog.get_logger("ragworks.replica").error(event, action=event, exc_info=error)


def _configure_once() -> None:
    import structlog

    if not structlog.is_configured():  # else its service knows better
        _configure("info", for_people=False)


def spoken(line: str) -> tuple[int, str, dict[str, Any]] | None:
    """(level, event, fields) of a line that ``configure_child`` had written; None if it is something else."""
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
        event, level = fields.pop("event"), logging.getLevelNamesMapping()[fields.pop("level").upper()]
    except (ValueError, KeyError, AttributeError, RecursionError):
        return None
    return level, str(event), {name: value for name, value in fields.items() if name not in NOT_TAKEN}


def _readable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A traceback that another process wrote as fields, as text."""
    if isinstance(found := event.get("exception"), list):
        event["exception"] = "\n".join(line for error in found for line in _lines(error))
    return event


def _lines(error: Any) -> Iterator[str]:
    try:
        for frame in error["frames"]:
            yield f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}'
        yield f"{error['exc_type']}: {error['exc_value']}"
    except (KeyError, TypeError):  # of another version of the library
        yield str(error)


def _merged(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**_from_caller.get(), **event}
