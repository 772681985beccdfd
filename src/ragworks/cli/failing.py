"""How a command fails: one line on stderr, and the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from ragworks.cli.output import say
from ragworks.errors import InvalidSettings, RagworksError

T = TypeVar("T")

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def run(work: Coroutine[Any, Any, T], interrupted: str = "interrupted") -> T:
    """What ``work`` returns. Ctrl-C, and a second signal to a server, end it with the sentence ``interrupted``."""
    try:
        return asyncio.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(interrupted)
        raise typer.Exit(INTERRUPTED) from None


def report(error: BaseException) -> int:
    """Say what went wrong and return the exit code. Of a group, the first expected error speaks."""
    leaves = _leaves(error)
    expected = next((one for one in leaves if isinstance(one, RagworksError)), None)
    if expected is not None:
        say(f"{expected.code}: {expected}")
        return USAGE if isinstance(expected, InvalidSettings) else FAILED
    first = leaves[0]
    if isinstance(first, OSError):
        say(f"{first.strerror or first}{f': {first.filename}' if first.filename else ''}")
    else:
        say(f"unexpected {type(first).__name__}: {first}; the same command with --debug shows where it comes from")
    return FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]
