"""How long a job will take: what documents of its kind and size have cost, and the work that shares the machine.

Reading and embedding overlap, as do documents, so the slower of the two decides; a job's share of both follows from its
share of the slots, as ``sharing`` deals them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ragworks.policies.sharing import PASSED_OVER
from ragworks.records import UNCHANGED, Cost, OpenWork

MB = 1e6
KEEP = 0.98  # weight that a document keeps when the next of its kind and size comes: about the last fifty count
NEAR = 0.25  # weight of an observation at twice or half the size
PRIOR_WEIGHT = 0.5  # documents that the prior counts for at first; soon none
OUTLIER = 5.0  # times more than expected; beyond it a document counts as if it had cost so much
KNOWN = 5.0  # documents after which an expectation is trusted to call another an outlier
ROUND = 64  # chunks that a document embeds at a time, while others of other documents wait
SHOWN = 10  # kinds of which people are told what they cost
FINISH_S = 0.1  # the last document's publishing, its indexes, and the queue's own time


@dataclass(frozen=True, slots=True)
class Prior:
    """What a kind is taken to cost while nothing is known: one busy core of a few years' age."""

    read_s: float
    read_s_per_mb: float
    chunks_per_mb: float


TEXT = Prior(0.01, 0.8, 900.0)
PRIORS: Mapping[str, Prior] = {
    ".pdf": Prior(0.1, 1.0, 40.0),
    ".docx": Prior(0.1, 1.0, 40.0),
    ".pptx": Prior(0.1, 0.5, 30.0),
    ".xlsx": Prior(0.1, 2.0, 500.0),
    ".epub": Prior(0.1, 1.0, 500.0),
    ".html": Prior(0.05, 0.5, 50.0),
    ".png": Prior(1.0, 1.0, 2.0),
    ".jpg": Prior(1.0, 1.0, 2.0),
}
EMBED_S_PER_CHUNK = 0.05
UNCHANGED_S = 0.015


@dataclass(frozen=True, slots=True)
class Sums:
    """Decayed sums over documents of one kind and size class."""

    documents: float = 0.0
    size_bytes: float = 0.0
    read_s: float = 0.0
    chunks: float = 0.0


@dataclass(frozen=True, slots=True)
class Learnt:
    """What documents have cost, by kind and size class (the bits of the size); those that failed included."""

    kinds: Mapping[str, Mapping[int, Sums]] = field(default_factory=dict)
    embed_s: float = EMBED_S_PER_CHUNK
    chunks: float = 1.0


@dataclass(frozen=True, slots=True)
class Expected:
    read_s: float
    chunks: float
    embed_s: float


def kind_of(media_type: str | None, name: str) -> str:
    """What documents are compared by: the ending of the name, or the media type where it is the caller's last word."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    return media_type or (ending if 1 < len(ending) <= 8 and ending[1:].isalnum() else "")


def expect(learnt: Learnt, kind: str, size_bytes: float) -> Expected:
    """One document of this kind and size. Knows nothing: the prior. A size never seen: the nearest, scaled."""
    if kind == UNCHANGED:
        return Expected(0.0, 0.0, UNCHANGED_S)
    size = max(1.0, size_bytes)
    read = chunks = known = 0.0
    here = int(size).bit_length()
    for size_class, sums in learnt.kinds.get(kind, {}).items():
        near = sums.documents * NEAR ** abs(size_class - here)
        scale = near * size / max(1.0, sums.size_bytes)
        read, chunks, known = read + scale * sums.read_s, chunks + scale * sums.chunks, known + near
    prior = PRIORS.get(kind, TEXT)
    believed = PRIOR_WEIGHT / (1 + known) ** 2
    read += believed * (prior.read_s + prior.read_s_per_mb * size / MB)
    chunks += believed * max(1.0, prior.chunks_per_mb * size / MB)
    known += believed
    count = chunks / known
    return Expected(read / known, count, count * learnt.embed_s / learnt.chunks)


def known_costs(learnt: Learnt) -> dict[str, Any]:
    """For people: what an embedded passage has cost, and a megabyte of each of the kinds most often read lately."""
    kinds = {kind: list(classes.values()) for kind, classes in learnt.kinds.items() if kind != UNCHANGED}
    often = sorted(kinds, key=lambda kind: -sum(one.documents for one in kinds[kind]))[:SHOWN]
    return {
        "embed_s_per_chunk": learnt.embed_s / learnt.chunks if kinds else None,
        "read_s_per_mb": {
            kind: MB * sum(one.read_s for one in kinds[kind]) / max(1.0, sum(one.size_bytes for one in kinds[kind]))
            for kind in often
        },
    }


def learn(learnt: Learnt, cost: Cost) -> Learnt:
    """The same, knowing one document more."""
    expected = expect(learnt, cost.kind, cost.size_bytes)
    classes = learnt.kinds.get(cost.kind, {})
    here = max(1, cost.size_bytes).bit_length()
    old = classes.get(here, Sums())

    def tame(value: float, usual: float) -> float:
        return min(value, OUTLIER * usual) if old.documents >= KNOWN else value

    new = Sums(
        old.documents * KEEP + 1,
        old.size_bytes * KEEP + cost.size_bytes,
        old.read_s * KEEP + tame(cost.read_s, expected.read_s),
        old.chunks * KEEP + tame(cost.chunks, expected.chunks),
    )
    per_chunk = learnt.embed_s / learnt.chunks
    embed_s = min(cost.embed_s, OUTLIER * per_chunk * cost.chunks) if learnt.chunks >= KNOWN else cost.embed_s
    keep = KEEP if cost.chunks else 1.0
    return replace(
        learnt,
        kinds={**learnt.kinds, cost.kind: {**classes, here: new}},
        embed_s=learnt.embed_s * keep + embed_s,
        chunks=learnt.chunks * keep + cost.chunks,
    )


@dataclass(slots=True)
class _Job:
    """A job: its open documents, and what one of them costs; ``rounds`` is how often one goes to the model."""

    collection: str
    priority: int
    documents: float = 0.0
    read_s: float = 0.0
    embed_s: float = 0.0
    rounds: float = 0.0


def completion_s(learnt: Learnt, work: Sequence[OpenWork], job: str, slots: int, workers: int) -> float:
    """Seconds until the last document of ``job`` ends, given all open work; 0 when it has none."""
    jobs = _jobs(learnt, work)
    if job not in jobs:
        return 0.0
    mine, share = jobs[job], _shares(jobs, slots)
    embedding = reading = 0.0
    # Every running document goes to the model once in a round; so far each job comes until mine has ended.
    needed = mine.documents * mine.rounds / share[job]
    for name, one in jobs.items():
        documents = min(one.documents, needed * share[name] / one.rounds)
        embedding += documents * one.embed_s
        reading += documents * one.read_s / workers
    busy = max(embedding, reading) + min(mine.read_s, mine.embed_s)
    return max(busy, mine.read_s + mine.embed_s) + FINISH_S


def _jobs(learnt: Learnt, work: Sequence[OpenWork]) -> dict[str, _Job]:
    jobs: dict[str, _Job] = {}
    for part in work:
        one = jobs.setdefault(part.job, _Job(part.collection, part.priority))
        expected = expect(learnt, part.kind, part.size_bytes / part.documents)
        one.documents += part.documents
        one.read_s += part.documents * expected.read_s
        one.embed_s += part.documents * expected.embed_s
        one.rounds += part.documents * max(1.0, expected.chunks / ROUND)
    for one in jobs.values():
        one.read_s, one.embed_s = one.read_s / one.documents, one.embed_s / one.documents
        one.rounds /= one.documents
    return jobs


def _shares(jobs: Mapping[str, _Job], slots: int) -> dict[str, float]:
    """Slots that each job holds: equal between collections, then between their jobs; what one cannot use is left."""
    weight = {name: float((1 + PASSED_OVER) ** one.priority) for name, one in jobs.items()}
    total: dict[str, float] = {}
    top: dict[str, float] = {}
    for name, one in jobs.items():
        total[one.collection] = total.get(one.collection, 0.0) + weight[name]
        top[one.collection] = max(top.get(one.collection, 0.0), weight[name])
    claim = {name: top[one.collection] * weight[name] / total[one.collection] for name, one in jobs.items()}
    share: dict[str, float] = {}
    left, claimed = float(slots), sum(claim.values())
    # Who needs least first: what it leaves is dealt out among the rest.
    for name in sorted(jobs, key=lambda name: jobs[name].documents / claim[name]):
        share[name] = min(jobs[name].documents, left * claim[name] / max(claimed, claim[name]))
        left, claimed = left - share[name], claimed - claim[name]
    return share


def errors(forecasts: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """How wrong estimates were: median and ninth decile of |predicted - actual| / actual; None without any."""
    wrong = sorted(abs(predicted - actual) / actual for predicted, actual in forecasts if actual > 0)
    return {
        "estimate_error_median": wrong[len(wrong) // 2] if wrong else None,
        "estimate_error_p90": wrong[min(len(wrong) - 1, len(wrong) * 9 // 10)] if wrong else None,
    }
