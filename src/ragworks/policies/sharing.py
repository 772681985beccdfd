"""Whose turn it is: which waiting job gives its next document to a free slot.

A higher priority goes first, but a lower one that waits is passed over about ``PASSED_OVER`` times at most. Within a
priority: the collection with the fewest documents running, then the one that waited longest for a turn; within the
collection the same between its jobs, then the order of submission.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PASSED_OVER = 8  # so that low gets a ninth of the turns beside one higher priority, never nothing


@dataclass(frozen=True, slots=True)
class Line:
    """The open documents of one job: how many run, and the first (by sequence) that waits for a slot, if one does."""

    job: str
    collection: str
    priority: int
    running: int
    first: int | None


@dataclass(frozen=True, slots=True)
class Turns:
    """What came before: the last turn of each collection and job, and how often each priority was passed over."""

    count: int = 0
    collections: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    passed: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """Lines to ask, in this order: the first that has a document which may start has the turn."""

    lines: tuple[Line, ...]
    reason: str


def most_of(slots: int) -> int:
    """How many slots one collection may hold, so that a newcomer finds one free; with one slot there is no choice."""
    return max(1, slots * 3 // 4)


def order(slots: int, lines: Sequence[Line], turns: Turns) -> Order:
    """Nothing waits, or what waits is of collections that hold their share: nobody has the turn."""
    running: Counter[str] = Counter()
    for line in lines:
        running[line.collection] += line.running
    able = [line for line in lines if line.first is not None and running[line.collection] < most_of(slots)]
    if not able:
        waits = any(line.first is not None for line in lines)
        return Order((), "who waits holds a full share of the slots" if waits else "nothing waits")
    overdue = [line.priority for line in able if turns.passed.get(line.priority, 0) >= PASSED_OVER]
    first = max(overdue, key=lambda priority: turns.passed[priority], default=max(line.priority for line in able))

    def place(line: Line) -> tuple[object, ...]:
        return (
            line.priority != first,
            -line.priority,
            running[line.collection],
            turns.collections.get(line.collection, 0),
            line.collection,
            line.running,
            turns.jobs.get(line.job, 0),
            line.first,
        )

    reason = f"priority {first} was passed over {turns.passed[first]} times" if overdue else "the fewest running"
    return Order(tuple(sorted(able, key=place)), reason)


def taken(turns: Turns, lines: Sequence[Line], mine: Line) -> Turns:
    """The turns after ``mine`` had one. Who is no longer in line is forgotten."""
    count = turns.count + 1
    collections = {line.collection: turns.collections.get(line.collection, 0) for line in lines}
    jobs = {line.job: turns.jobs.get(line.job, 0) for line in lines}
    passed = {line.priority: turns.passed.get(line.priority, 0) + 1 for line in lines if line.first is not None}
    return Turns(
        count, {**collections, mine.collection: count}, {**jobs, mine.job: count}, {**passed, mine.priority: 0}
    )
