"""What follows an attempt to deliver a webhook: it is done, given up, or tried again, and when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from ragworks.policies import retrying

# Seven waits, each from half of its ceiling to all of it: 30 + 60 + … + 960 + 1800 s, so 31 to 62 minutes in all.
RETRY = retrying.RetrySettings(max_attempts=8, base_delay_s=30.0, max_delay_s=1800.0)
LONGEST_S = 24 * 3600.0  # a receiver may name any time; a delivery that waits for years is one that is lost
GONE = 410


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answered; ``status`` is None and ``error`` says why when it did not."""

    status: int | None
    error: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``delay_s`` is set when the delivery is retried."""

    outcome: Literal["delivered", "retried", "failed"]
    reason: str
    delay_s: float | None = None


def decide(reply: Reply, attempts: int, rng: Random) -> Verdict:
    """What follows attempt number ``attempts`` (1 for the first)."""
    if reply.status is not None and 200 <= reply.status < 300:
        return Verdict("delivered", f"the receiver answered {reply.status}")
    what = _said(reply)
    retry = retrying.decide(RETRY, attempts, transient=reply.status != GONE, rng=rng)
    if retry.delay_s is None:
        return Verdict("failed", what if reply.status == GONE else f"{what}; {retry.reason}")
    return Verdict("retried", what, min(LONGEST_S, max(retry.delay_s, reply.retry_after_s or 0.0)))


def _said(reply: Reply) -> str:
    if reply.status is None:
        return reply.error
    if reply.status == GONE:
        return "the receiver answered 410: it wants no more"
    if 300 <= reply.status < 400:
        return f"the receiver answered {reply.status}; redirects are not followed: submit the URL that it leads to"
    return f"the receiver answered {reply.status}"
