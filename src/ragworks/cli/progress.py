"""Progress on stderr: a bar on a terminal, now and then a line elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ragworks.cli.output import say

STEPS = 10  # lines that a long work prints where there is no terminal


class Progress(Protocol):
    """Told what is done, of how many, and a word on what happens now. Cheap enough to call at every change."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def showing(quiet: bool = False) -> Iterator[Progress]:
    """The progress that fits stderr; left behind when the work ends."""
    if quiet:
        yield lambda what, done, total, note="": None
    elif sys.stderr.isatty():
        with _bar() as progress:
            yield progress
    else:
        yield _Lines()


class _Lines:
    """A line whenever another tenth is done."""

    def __init__(self) -> None:
        self._last: tuple[str, int] = ("", 0)

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        step = (what, done * STEPS // max(total, 1))
        if step != self._last and step[1] > 0:
            say(f"{what} {done}/{total}")
        self._last = step


def left(estimates: Sequence[Mapping[str, Any]]) -> str:
    """What is left until the last of these jobs ends, in words; nothing when none of them tells."""
    told = [
        (one["estimated_completion_time"], one["estimated_completion_interval"])
        for one in estimates
        if one.get("estimated_completion_interval")
    ]
    if not told:
        return ""
    expected = max(expected for expected, _ in told)
    low, high = (max(interval[end] for _, interval in told) for end in ("low", "high"))
    name, unit = ("s", 1) if expected < 120 else ("min", 60) if expected < 7200 else ("h", 3600)
    return f"about {_short(expected / unit)} {name} left ({_short(low / unit)} to {_short(high / unit)})"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, int] = {}

        def progress(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note="")
            bars.update(tasks[what], completed=done, total=total, note=note)  # type: ignore[arg-type]

        yield progress
