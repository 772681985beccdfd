"""What the end of a call to a replica means: whose fault it was, and whether the call is sent again elsewhere.

Also when a second replica is asked beside a slow one (hedging; Dean and Barroso, The Tail at Scale, 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ragworks.errors import EndpointUnavailable, NotReady, RagworksError, ReplicaGone, ReplicaLost
from ragworks.policies.retrying import BudgetSettings


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """A call that takes longer than ``quantile`` of the last ones is sent a second time; 0 never does. At most
    ``share`` of the calls are, and none before ``min_calls`` answers have shown how long they take."""

    quantile: float = 0.0
    share: float = 0.05
    min_calls: int = 50


@dataclass(frozen=True, slots=True)
class CallSettings:
    """A call that finds no replica waits ``wait_s`` for one, beside ``max_waiting`` others at most."""

    max_attempts: int = 3
    wait_s: float = 10.0
    max_waiting: int = 1000
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    hedge: HedgeSettings = field(default_factory=HedgeSettings)


class Fault(StrEnum):
    """Why a call did not get its answer, from least to most that may have happened.

    NONE: the replica did its work, the call itself is to blame. GONE: the replica had ended before. REFUSED: it did
    nothing with the call. FAILED: it may have taken effect. LOST: the same, and the replica has ended.
    """

    NONE = "none"
    GONE = "gone"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a call was tried, how many replicas were lost with it, and whether it may take effect twice."""

    idempotent: bool = True
    made: int = 0
    losses: int = 0

    def after(self, fault: Fault) -> Attempts:
        """The same, once another has ended so. Who was gone was not tried."""
        return replace(self, made=self.made + (fault is not Fault.GONE), losses=self.losses + (fault is Fault.LOST))


@dataclass(frozen=True, slots=True)
class Again:
    """Whether a call is sent to another replica, and what that takes from the retry budget."""

    again: bool
    cost: float
    reason: str


def classify(error: Exception) -> Fault:
    """Whose fault it is. What nobody foresaw is the replica's: nothing says that it is the caller's."""
    if isinstance(error, ReplicaLost):
        return Fault.GONE if isinstance(error, ReplicaGone) else Fault.LOST
    if isinstance(error, NotReady):
        return Fault.REFUSED
    # Any error that is not ours travels from another process as a bare RagworksError.
    ours = isinstance(error, RagworksError) and type(error) is not RagworksError
    return Fault.NONE if ours and not isinstance(error, EndpointUnavailable) else Fault.FAILED


def again(settings: CallSettings, fault: Fault, attempts: Attempts, *, left_s: float, saved: float) -> Again:
    """What follows ``attempts``, the last of which ended by ``fault``, with ``saved`` retries left.

    Who was gone is not tried again, so that such calls end.

    The first loss costs nothing: a replica takes only its calls in flight along when it ends, so such retries cannot
    grow with the trouble. A second may be the call's own doing.
    """
    if fault is Fault.NONE:
        return Again(False, 0.0, "the call itself is to blame: the same input fails again")
    if not attempts.idempotent and fault not in (Fault.GONE, Fault.REFUSED):
        return Again(False, 0.0, "it may have taken effect, and must not twice")
    if left_s <= 0:
        return Again(False, 0.0, "the caller's time is over")
    if fault is Fault.GONE:
        return Again(True, 0.0, "nobody was there to try it")
    if attempts.made >= settings.max_attempts:
        return Again(False, 0.0, f"attempt {attempts.made} of {settings.max_attempts} failed")
    if fault is Fault.LOST and attempts.losses == 1:
        return Again(True, 0.0, "its replica was lost")
    if saved < 1:
        return Again(False, 0.0, "the retry budget is spent: too many calls fail")
    return Again(True, 1.0, f"{saved:.1f} retries were left")


def hedge_after_s(settings: HedgeSettings, took_s: Sequence[float]) -> float | None:
    """How long a call may take before a second replica is asked; None while that is off or not known."""
    if settings.quantile <= 0 or len(took_s) < settings.min_calls:
        return None
    return sorted(took_s)[min(len(took_s) - 1, math.floor(settings.quantile * len(took_s)))]
