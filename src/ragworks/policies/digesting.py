"""Questions to numbers: what was asked, how it went, how long it took, which documents served; no data is no number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

HOUR_S, DAY_S = 3600.0, 86_400.0
MOST_PERIODS = 48  # two days by the hour; what is longer is told by the day
MOST_TOLD = 20  # questions and comments that are told one by one
MOST_DOCUMENTS = 10


@dataclass(frozen=True, slots=True)
class Question:
    """One search or ask. ``text`` and ``comment`` are None unless the log is full; ``seconds`` are by step.

    ``outcome`` is answered, abstained, nothing (no passage was found), failed (``error`` is its code), or left (the
    client did not wait). ``cached``: no vector of the question had to be computed. ``documents`` are those of the hits.
    """

    key: str
    at: float
    request: str
    collection: str
    kind: str
    mode: str
    outcome: str
    error: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    hits: int = 0
    best_score: float | None = None
    support: float | None = None
    documents: tuple[str, ...] = ()
    cited: tuple[str, ...] = ()
    cached: bool | None = None
    generator: str = ""
    tokens: int | None = None
    text: str | None = None
    rating: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one step; half of the questions, and 95 of 100, took no longer."""

    step: str
    count: int
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Use:
    """How often passages of a document were found, and cited."""

    collection: str
    document_id: str
    found: int
    cited: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What questions come to. ``periods`` are (start, questions), ``period_s`` long each, empty ones included."""

    questions: int
    kinds: Mapping[str, int]
    outcomes: Mapping[str, int]
    period_s: float
    periods: tuple[tuple[float, int], ...]
    collections: Mapping[str, int]
    latency: tuple[Latency, ...]
    cache_hits: int
    cache_lookups: int
    errors: Mapping[str, int]
    ratings: Mapping[str, int]
    used: tuple[Use, ...]
    unanswered: tuple[Question, ...]
    commented: tuple[Question, ...]
    tokens: int | None


def digest(questions: Sequence[Question], since: float, now: float) -> Digest:
    """All numbers of the questions from ``since`` to ``now``; the order of the questions does not matter to them."""
    told = sorted(questions, key=lambda one: (one.at, one.key), reverse=True)
    looked_up = [one.cached for one in questions if one.cached is not None]
    tokens = [one.tokens for one in questions if one.tokens is not None]
    period_s, periods = _periods([one.at for one in questions], since, now)
    return Digest(
        questions=len(questions),
        kinds=_counted(one.kind for one in questions),
        outcomes=_counted(one.outcome for one in questions),
        period_s=period_s,
        periods=periods,
        collections=_counted(one.collection for one in questions),
        latency=_latencies(questions),
        cache_hits=sum(looked_up),
        cache_lookups=len(looked_up),
        errors=_counted(one.error for one in questions if one.error),
        ratings=_counted(one.rating for one in questions if one.rating),
        used=_uses(questions),
        unanswered=tuple(one for one in told if one.outcome in ("abstained", "nothing"))[:MOST_TOLD],
        commented=tuple(one for one in told if one.comment)[:MOST_TOLD],
        tokens=sum(tokens) if tokens else None,
    )


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that ``share`` of them do not exceed; None of none."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)] if values else None


def _counted(values: Iterable[str]) -> dict[str, int]:
    """The most frequent first; among equals by name, so that the same questions always read the same."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _periods(times: Sequence[float], since: float, now: float) -> tuple[float, tuple[tuple[float, int], ...]]:
    if not times:
        return HOUR_S, ()
    first, last = max(since, min(times)), max(now, max(times))
    size = HOUR_S if last - first <= MOST_PERIODS * HOUR_S else DAY_S
    counts = Counter(at // size for at in times)
    return size, tuple((n * size, counts[n]) for n in range(int(first // size), int(last // size) + 1))


def _latencies(questions: Sequence[Question]) -> tuple[Latency, ...]:
    found: dict[str, list[float]] = {}
    for one in questions:
        for step, seconds in one.seconds.items():
            found.setdefault(step, []).append(seconds)
    return tuple(
        Latency(step, len(took), quantile(took, 0.5) or 0.0, quantile(took, 0.95) or 0.0)
        for step, took in found.items()
    )


def _uses(questions: Sequence[Question]) -> tuple[Use, ...]:
    found = Counter((one.collection, document) for one in questions for document in set(one.documents))
    cited = Counter((one.collection, document) for one in questions for document in set(one.cited))
    uses = [Use(*key, found[key], cited[key]) for key in found.keys() | cited.keys()]
    return tuple(sorted(uses, key=lambda use: (-use.found, -use.cited, use.collection, use.document_id)))
