"""What one balancer knows of one replica, and what follows from it for a call that would go there.

A call of cost c is expected to take ``pace x (a + b x c)`` seconds: a and b of the service, the pace of the replica.
Both are learnt from what calls took, so neither speeds nor sizes need to be configured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REMEMBERED = 300.0
"""Calls over which the expectation of the next one fades; it is of all replicas together, so it may be long."""

KNOWN = 40.0
"""Answers over which a pace fades. On the Azure trace 20 to 100 differ by less than 1 % in the mean; fewer follow the
noise of answers whose length nobody knew, more are late when a replica slows down."""

AVERAGED = 50.0
"""Answers over which the average response time fades."""

CROWD = 1.0
"""How much longer a call is expected to take where all slots are busy: replicas slow down as they fill, and what this
balancer has sent stands for what others have."""

SHORTEST = 0.05
"""Of the usual call: a line through noise may cross zero for a small cost."""

PATIENCE, MOST_PATIENCE = 10, 160
"""Rounds (picks by candidates) after which a replica that was too slow to be picked is tried again, doubled each time
that it still is slow: of six replicas one call in 60 at first, in 1000 later, is spent on finding out."""

SLOW = 1.5
"""Times the best pace, above which a replica that was tried again counts as still slow."""


@dataclass(slots=True)
class Load:
    """A snapshot that is updated, not rebuilt: by the functions below and the set that owns it. Strategies only read.

    ``turn`` is the number of the set's pick that it got last, ``response_s`` the average of good answers (None before
    the first), ``used`` counts picks since usage was last reported (None: never).

    The rest is in expected seconds at pace 1: ``pace`` as learnt from ``known`` answers; ``backlog`` of all calls in
    flight, ``serving`` of those ``busy`` in a slot, the rest waits; of the busy ones the sums of their starts
    (``since``), of 1 per expected second (``parts``), and of starts per expected second (``parts_since``).
    """

    replica_id: str
    slots: int = 1
    active: int = 0
    turn: int = 0
    response_s: float | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    used: int = 0
    error_rate: float = 0.0
    pace: float = 1.0
    known: float = 1.0
    patience: int = PATIENCE
    backlog: float = 0.0
    serving: float = 0.0
    busy: int = 0
    since: float = 0.0
    parts: float = 0.0
    parts_since: float = 0.0


@dataclass(slots=True)
class Expectation:
    """A line through (cost, seconds at pace 1), by least squares with fading weights."""

    weight: float = 0.0
    cost: float = 0.0
    seconds: float = 0.0
    variance: float = 0.0
    covariance: float = 0.0

    def of(self, cost: float | None) -> float:
        """Seconds that a call should take at pace 1; 0 as long as none has ended."""
        if cost is None or self.variance <= 0.0 or self.covariance <= 0.0:
            return self.seconds
        guess = self.seconds + self.covariance / self.variance * (cost - self.cost)
        return max(guess, SHORTEST * self.seconds)

    def observe(self, cost: float | None, seconds: float) -> None:
        self.weight = min(self.weight + 1.0, REMEMBERED)
        share = 1.0 / self.weight
        off = seconds - self.seconds
        self.seconds += share * off
        if cost is not None:
            apart = cost - self.cost
            self.cost += share * apart
            self.variance += share * ((1.0 - share) * apart * apart - self.variance)
            self.covariance += share * ((1.0 - share) * apart * off - self.covariance)


def current_pace(load: Load, now: float) -> float:
    """The learnt pace, or slower if what is in flight has taken longer than that already.

    The busy calls have used ``now x parts - parts_since`` times their expected seconds, where ``pace x busy`` was to be
    expected in the end; the excess counts as if the ``known`` answers had shown it. So a replica that hangs is avoided
    before anything has come back from it.
    """
    if load.busy:
        excess = now * load.parts - load.parts_since - load.pace * load.busy
        if excess > 0.0:
            return load.pace + excess / load.known
    return load.pace


def expected_delay_s(load: Load, now: float, expected_s: float) -> float:
    """Until a call that comes now has its answer: what is ahead of it, then itself, at the current pace.

    With all slots busy, the next free one is 1/slots of the mean remainder away, and each call that waits takes its
    share. Where some calls fail, others must be made instead.
    """
    pace = current_pace(load, now)
    delay = pace * expected_s
    if load.active >= load.slots:
        delay += waiting_s(load, now, pace)
    if load.error_rate:
        delay /= max(0.05, 1.0 - load.error_rate)
    return delay * (1.0 + CROWD * load.active / load.slots)


def waiting_s(load: Load, now: float, pace: float) -> float:
    """Until all that is ahead of one more call has begun and a slot is free; for a replica with all slots busy."""
    left = max(0.0, pace * load.serving - (now * load.busy - load.since))
    waiting = max(0.0, load.backlog - load.serving)  # two sums of the same floats may differ by a rounding
    return (left / load.slots + pace * waiting) / load.slots


def begin(load: Load, expected_s: float, now: float) -> None:
    """A call in flight is worked on from now on."""
    part = 1.0 / expected_s
    load.busy += 1
    load.serving += expected_s
    load.since += now
    load.parts += part
    load.parts_since += now * part


def end(load: Load, expected_s: float, began_at: float) -> None:
    """Take back what ``begin`` added."""
    part = 1.0 / expected_s
    load.busy -= 1
    load.serving -= expected_s
    load.since -= began_at
    load.parts -= part
    load.parts_since -= began_at * part
    if not load.busy:  # sums of floats drift; here they are known
        load.serving = load.since = load.parts = load.parts_since = 0.0


def average(load: Load, response_s: float) -> None:
    if load.response_s is None:
        load.response_s = response_s
    else:
        load.response_s += (response_s - load.response_s) / AVERAGED


def learn(load: Load, ratio: float, *, again: bool, best: float) -> None:
    """A call took ``ratio`` times what was expected at pace 1.

    If it was made to look ``again`` at a replica that had long not been picked, what was known is old: the pace goes
    half of the way, in proportion, since one that hung may seem hundreds of times slower. After a fast answer another
    look comes soon.
    """
    if again:
        load.known = 2.0
        load.pace = math.sqrt(load.pace * ratio)
        load.patience = min(load.patience * 2, MOST_PATIENCE) if ratio > SLOW * best else PATIENCE
        return
    load.known = min(load.known + 1.0, KNOWN)
    load.pace += (ratio - load.pace) / load.known
