"""Whether an attempt is alive. Dead, slow and starved look alike from outside; only the dead must lose its lease."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """FINE and SLOW make progress, STARVED waits for others, DEAD had its turn and does nothing with it."""

    FINE = "fine"
    SLOW = "slow"
    STARVED = "starved"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt, in seconds of one clock: when its turn began, its last sign of progress, and what it waits for.

    Signs are a stage that begins, passages that were embedded, messages of the worker process.
    """

    since: float
    last_sign: float
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reason: str

    @property
    def renewed(self) -> bool:
        return self.verdict != Verdict.DEAD


def judge(lease_s: float, seen: Seen, now: float) -> Judgement:
    """Who waits for a worker or the model is never dead, however long: the fault is not its own."""
    silent, under_way = now - seen.last_sign, now - seen.since
    if seen.waits_for is not None:
        if silent <= lease_s:
            return Judgement(Verdict.FINE, f"waits for {seen.waits_for}")
        return Judgement(Verdict.STARVED, f"has waited {silent:.0f} s for {seen.waits_for}")
    if silent > lease_s:
        return Judgement(Verdict.DEAD, f"no sign of progress for {silent:.0f} s, the limit is {lease_s:g} s")
    if under_way > lease_s:
        return Judgement(Verdict.SLOW, f"under way for {under_way:.0f} s, last sign {silent:.0f} s ago")
    return Judgement(Verdict.FINE, f"last sign {silent:.0f} s ago")
