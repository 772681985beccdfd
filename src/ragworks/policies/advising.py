"""Numbers to findings: a health score with its parts, and which setting to change, on what evidence.

Three things that a piece of advice may be: a change, none needed, or undecided for want of data; never a guess. Each is
a small function of what was seen; ``ADVISERS`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log
from statistics import median_low
from typing import Literal

from ragworks.policies.digesting import Digest, Question, quantile

ENOUGH = 50
"""Questions before a setting is judged: a share of 20 % of 50 is known within 11 points, 19 times of 20."""
ENOUGH_FOR_HEALTH, ENOUGH_RATINGS = 10, 5
ABSTAINED, NEAR = 0.2, 1.0
"""From a fifth of the questions on, abstaining is worth a look; a support is near within one unit of the threshold."""
QUEUED = 3.0  # a usual call that takes this many times as long as a fast one spends most of its time waiting
SLOW_EMBED_S = 0.1
RARELY_CACHED = 0.2
LATE = 0.05
GOOD_S, BAD_S = 1.0, 10.0  # what people wait without noticing, and until they leave
BAD_ERRORS = 0.1
HEADROOM = 2.0
TOO_MANY = "not enough data: there are too many documents to look through"
KNOWN = 0.5  # of a score's weight, or it would be that of a part

BY_CODE: Mapping[str, str] = {
    "read_timeout": "document_processor.read_timeout_s",
    "read_memory_exceeded": "document_processor.read_memory_bytes",
    "document_too_large": "document_processor.max_document_bytes",
}
"""Failures of documents that a setting can mend."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the questions do not tell: settings in force, and counts from elsewhere; None where it is not known.

    ``replicas`` and ``workers`` are those that run; ``replicas_fixed`` says why no setting would change how many there
    are, if so. ``evictions`` are vectors that left the cache for want of room since the start, ``refusals`` submissions
    that met a full queue, ``failed`` documents by code.
    """

    support_threshold: float
    rerank_budget_s: float
    cache_max_size: int
    max_queue_size: int
    workers: int
    replicas: int
    cores: int
    replicas_fixed: str = ""
    documents: int | None = None
    evictions: int | None = None
    refusals: int = 0
    failed: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    questions: Sequence[Question]
    numbers: Digest
    around: Surroundings


Verdict = Literal["change", "fine", "undecided"]


@dataclass(frozen=True, slots=True)
class Advice:
    """About one setting: what to do (empty unless it is to change), and the evidence, or how much of it is missing."""

    setting: str
    verdict: Verdict
    evidence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the health score: ``value`` from 0 (bad) to 1, None where there is not enough to tell."""

    name: str
    weight: float
    value: float | None
    why: str


@dataclass(frozen=True, slots=True)
class HealthScore:
    """``score`` from 0 to 100 over the parts that are known; ``known`` is the weight of those, of 1 in all. There is no
    score while that is less than half."""

    score: int | None
    known: float
    parts: tuple[Part, ...] = field(default=())


def support_threshold(seen: Seen) -> Advice:
    """Many abstentions whose best sentence nearly sufficed."""
    setting, threshold = "generation_service.support_threshold", seen.around.support_threshold
    judged = [one for one in seen.questions if one.kind == "ask" and one.support is not None]
    if len(judged) < ENOUGH:
        return _undecided(setting, len(judged), "answers whose support is known")
    abstained = [one.support for one in judged if one.outcome == "abstained" and one.support is not None]
    near = [support for support in abstained if threshold - NEAR <= support < threshold]
    evidence = f"{len(abstained)} of {len(judged)} abstained, {len(near)} of them within {NEAR:g} below {threshold:g}"
    if len(abstained) < ABSTAINED * len(judged) or 2 * len(near) < len(abstained):
        return Advice(setting, "fine", evidence)
    # Half of the near ones would be answered; rounded down, so that the middle one is among them.
    target = floor(10 * median_low(near)) / 10
    return Advice(
        setting, "change", evidence,
        f"try {target:g} in place of {threshold:g}, and read some of these answers: a lower one also answers what the "
        "documents do not support",
    )  # fmt: skip


def embedding_replicas(seen: Seen) -> Advice:
    """Questions that spend most of their time on an embedding, most of that waiting for a turn."""
    setting, around = "embeddings_service.replicas.instances", seen.around
    timed = [one for one in seen.questions if one.cached is False and one.seconds.get("total")]
    if len(timed) < ENOUGH:
        return _undecided(setting, len(timed), "questions whose vector had to be computed")
    took = [one.seconds.get("embed", 0.0) for one in timed]
    share = sum(took) / sum(max(one.seconds["total"], one.seconds.get("embed", 0.0)) for one in timed)
    usual, fast = quantile(took, 0.5) or 0.0, quantile(took, 0.05) or 0.0
    evidence = (
        f"embedding takes {share:.0%} of a question's time; half of the calls take over {1e3 * usual:.0f} ms, the "
        f"fastest {1e3 * fast:.0f} ms; {around.replicas} replicas on {around.cores} cores"
    )
    if around.replicas_fixed:
        return Advice(setting, "fine", f"{evidence}; {around.replicas_fixed}")
    if share < 0.5 or usual < SLOW_EMBED_S or usual < QUEUED * fast or around.replicas >= around.cores:
        return Advice(setting, "fine", evidence)
    return Advice(setting, "change", evidence, f"set {around.replicas + 1} in place of {around.replicas}")


def cache_size(seen: Seen) -> Advice:
    """Few questions find their vector in the cache, and the cache had to let go of some."""
    setting, around, numbers = "embeddings_service.cache_config.max_size", seen.around, seen.numbers
    if numbers.cache_lookups < ENOUGH:
        return _undecided(setting, numbers.cache_lookups, "questions that asked the cache")
    if around.evictions is None:
        return Advice(setting, "undecided", "not enough data: what the cache let go of is known to a running server")
    rate = numbers.cache_hits / numbers.cache_lookups
    evidence = (
        f"{numbers.cache_hits} of {numbers.cache_lookups} questions were cached; {around.evictions} vectors had to "
        f"leave a cache of {around.cache_max_size}"
    )
    if rate >= RARELY_CACHED or around.evictions < max(1, around.cache_max_size):
        return Advice(setting, "fine", evidence)
    return Advice(setting, "change", evidence, f"set {around.cache_max_size * 2} in place of {around.cache_max_size}")


def queue_size(seen: Seen) -> Advice:
    """Submissions that were refused because the queue was full: more workers where cores are free, one of which is left
    to questions, else more room."""
    around, refused, most = seen.around, seen.around.refusals, max(1, seen.around.cores - 1)
    free = around.workers < most
    setting = "document_processor.workers" if free else "document_processor.max_queue_size"
    evidence = f"{refused} submissions were refused for a full queue (429)"
    if refused < ENOUGH_FOR_HEALTH:
        return Advice(setting, "fine", evidence)
    now, more = (around.workers, most) if free else (around.max_queue_size, 2 * around.max_queue_size)
    return Advice(setting, "change", f"{evidence}; {around.workers} workers on {around.cores} cores",
                  f"set {more} in place of {now}")  # fmt: skip


def rerank_budget(seen: Seen) -> Advice:
    """Reranks that were left out because their time was over."""
    setting, budget = "retrieval_service.rerank_budget_s", seen.around.rerank_budget_s
    took = [one.seconds["rerank"] for one in seen.questions if "rerank" in one.seconds]
    if len(took) < ENOUGH:
        return _undecided(setting, len(took), "questions with a rerank")
    late = sum(one >= budget for one in took)
    evidence = f"{late} of {len(took)} reranks took longer than {budget:g} s and were left out"
    if late < LATE * len(took):
        return Advice(setting, "fine", evidence)
    return Advice(
        setting, "change", evidence,
        f"set {HEADROOM * budget:g} in place of {budget:g}, or lower retrieval_service.rerank_passages",
    )  # fmt: skip


def _of_failures(code: str) -> Callable[[Seen], Advice]:
    def adviser(seen: Seen) -> Advice:
        setting = BY_CODE[code]
        if seen.around.failed is None:
            return Advice(setting, "undecided", TOO_MANY)
        count = seen.around.failed.get(code, 0)
        evidence = f"{count} documents failed with {code}"
        return (
            Advice(setting, "change", evidence, "raise it, or split them")
            if count
            else Advice(setting, "fine", evidence)
        )

    return adviser


ADVISERS: tuple[Callable[[Seen], Advice], ...] = (
    support_threshold,
    embedding_replicas,
    cache_size,
    queue_size,
    rerank_budget,
    *map(_of_failures, BY_CODE),
)


def advise(seen: Seen) -> tuple[Advice, ...]:
    """What each adviser says: changes first, then what is undecided, then what is fine."""
    order: tuple[Verdict, ...] = ("change", "undecided", "fine")
    return tuple(sorted((adviser(seen) for adviser in ADVISERS), key=lambda advice: order.index(advice.verdict)))


def health(seen: Seen) -> HealthScore:
    """How well the system serves, from 0 to 100, and what that is made of."""
    parts = (_answers(seen), _errors(seen), _speed(seen), _documents(seen), _opinions(seen))
    told = [(part.weight, part.value) for part in parts if part.value is not None]
    known = sum(weight for weight, _ in told)
    score = round(100 * sum(weight * value for weight, value in told) / known) if known >= KNOWN else None
    return HealthScore(score, round(known, 3), parts)


def _answers(seen: Seen) -> Part:
    outcomes = seen.numbers.outcomes
    answered = outcomes.get("answered", 0)
    ended = answered + outcomes.get("abstained", 0) + outcomes.get("nothing", 0)
    why = f"{answered} of {ended} questions were answered"
    return _part("answers", 0.3, ended, ENOUGH_FOR_HEALTH, why, lambda: answered / ended)


def _errors(seen: Seen) -> Part:
    failed, asked = seen.numbers.outcomes.get("failed", 0), seen.numbers.questions
    why = f"{failed} of {asked} questions failed; {BAD_ERRORS:.0%} would be the worst"
    return _part("errors", 0.25, asked, ENOUGH_FOR_HEALTH, why, lambda: max(0.0, 1 - failed / asked / BAD_ERRORS))


def _speed(seen: Seen) -> Part:
    total = next((one for one in seen.numbers.latency if one.step == "total"), None)
    if total is None or total.count < ENOUGH_FOR_HEALTH:
        return _part("speed", 0.2, total.count if total else 0, ENOUGH_FOR_HEALTH, "", lambda: 0.0)
    # Even steps for each time that it takes twice as long.
    value = 1 - log(max(total.p95_s, GOOD_S) / GOOD_S) / log(BAD_S / GOOD_S)
    why = f"95 of 100 questions took up to {total.p95_s:.3g} s; {GOOD_S:g} s is good, {BAD_S:g} s the worst"
    return Part("speed", 0.2, max(0.0, value), why)


def _documents(seen: Seen) -> Part:
    if seen.around.failed is None or seen.around.documents is None:
        return Part("documents", 0.15, None, TOO_MANY)
    failed = sum(seen.around.failed.values())
    tried = failed + seen.around.documents
    return _part("documents", 0.15, tried, 1, f"{failed} of {tried} documents failed", lambda: 1 - failed / tried)


def _opinions(seen: Seen) -> Part:
    liked, rated = seen.numbers.ratings.get("up", 0), sum(seen.numbers.ratings.values())
    return _part("feedback", 0.1, rated, ENOUGH_RATINGS, f"{liked} of {rated} ratings are up", lambda: liked / rated)


def _part(name: str, weight: float, found: int, wanted: int, why: str, value: Callable[[], float]) -> Part:
    if found < wanted:
        what = {"feedback": "ratings", "documents": "documents"}.get(name, "questions")
        return Part(name, weight, None, f"not enough data: {found} of {wanted} {what}")
    return Part(name, weight, value(), why)


def _undecided(setting: str, found: int, what: str) -> Advice:
    return Advice(setting, "undecided", f"not enough data: {found} of {ENOUGH} {what}")
