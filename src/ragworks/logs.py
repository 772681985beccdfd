"""Where log events go: standard error, one line per state change, each named by a stable ``action``."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragworks.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Send events of ``settings.level`` and above to stderr: for people on a terminal, as JSON elsewhere.

    Tracebacks carry no values of variables: those may hold a document's text.
    """
    import structlog

    for_people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    as_fields = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.set_exc_info if for_people else as_fields,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if for_people
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        # Asked for each event: stderr may have been replaced since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
