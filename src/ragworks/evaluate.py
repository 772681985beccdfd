"""Scores search on judged questions: BEIR folders in, nDCG, recall, MRR and latency out, all through the real path."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragworks.client import Client, Json
from ragworks.errors import InvalidInput
from ragworks.feed import Feed, Tally, batches
from ragworks.text.rank_metrics import ndcg, recall, reciprocal_rank
from ragworks.types import Mode

OnProgress = Callable[[str, int, int], None]
"""What is being done, how many are done, of how many."""

EXPECTED = "expected corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv"
MEASURES = ("ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10")


@dataclass(frozen=True, slots=True)
class Question:
    """A judged question: ``gains`` holds at least one relevant document."""

    id: str
    text: str
    history: tuple[Json, ...]
    gains: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A BEIR folder. ``digest`` names the corpus by its content."""

    name: str
    digest: str
    documents: tuple[Json, ...]
    questions: tuple[Question, ...]

    @property
    def collection(self) -> str:
        return f"eval-{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{self.digest}"


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the judged questions of one set; latencies are those of one search after another."""

    dataset: str
    documents: int
    documents_failed: int
    questions: int
    ndcg_at_10: float
    recall_at_10: float
    recall_at_100: float
    mrr_at_10: float
    latency_ms: Mapping[str, float]
    ingest_s: float


def read_dataset(folder: str) -> Dataset:
    """The set in ``folder``. Raises InvalidInput that says which files were expected and which came."""
    place = Path(folder)
    judged = next((place / name for name in ("qrels.tsv", "qrels/test.tsv") if (place / name).is_file()), None)
    corpus, queries = place / "corpus.jsonl", place / "queries.jsonl"
    if judged is None or not corpus.is_file() or not queries.is_file():
        raise InvalidInput(f"{folder} is not a BEIR folder: {EXPECTED}; {_what_came(place)}")
    gains = _read_judgements(judged)
    documents = tuple(_document(one, corpus) for one in _lines(corpus))
    questions = tuple(
        Question(str(one["_id"]), _text(one, "text", queries), _turns(one.get("history", ())), gains[str(one["_id"])])
        for one in _lines(queries)
        if any(gain > 0 for gain in gains.get(str(one["_id"]), {}).values())
    )
    if not questions:
        raise InvalidInput(f"{queries} and {judged} have no judged question in common")
    return Dataset(place.resolve().name, hashlib.sha256(corpus.read_bytes()).hexdigest()[:8], documents, questions)


async def evaluate(
    client: Client, dataset: Dataset, *, mode: Mode, top_k: int, history: bool, on_progress: OnProgress
) -> Score:
    """Ingest the corpus, unless its collection holds it unchanged, and ask every judged question once."""
    started = time.perf_counter()
    tally = await _ingest(client, dataset, on_progress)
    ingest_s = time.perf_counter() - started
    rankings, seconds = [], []
    for number, question in enumerate(dataset.questions):
        on_progress(f"{dataset.name}: asking", number, len(dataset.questions))
        body = {"query": question.text, "top_k": top_k, "mode": mode, "group_by": "document"}
        if history and question.history:
            body["history"] = list(question.history)
        begun = time.perf_counter()
        found = await client.search(dataset.collection, body)
        seconds.append(time.perf_counter() - begun)
        rankings.append([hit["document_id"] for hit in found["results"]])
    on_progress(f"{dataset.name}: asking", len(dataset.questions), len(dataset.questions))
    return Score(
        dataset=dataset.name,
        documents=len(dataset.documents),
        documents_failed=len(tally.failed) + tally.cancelled,
        questions=len(dataset.questions),
        **scores(rankings, [question.gains for question in dataset.questions]),
        latency_ms={f"p{share}": _percentile(seconds, share) * 1000 for share in (50, 95, 99)},
        ingest_s=ingest_s,
    )


def scores(rankings: Sequence[Sequence[str]], gains: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over questions."""
    pairs = list(zip(rankings, gains, strict=True))
    return {
        "ndcg_at_10": statistics.fmean(ndcg(ranking, gain, 10) for ranking, gain in pairs),
        "recall_at_10": statistics.fmean(recall(ranking, gain, 10) for ranking, gain in pairs),
        "recall_at_100": statistics.fmean(recall(ranking, gain, 100) for ranking, gain in pairs),
        "mrr_at_10": statistics.fmean(reciprocal_rank(ranking, gain, 10) for ranking, gain in pairs),
    }


def report(found: Sequence[Score]) -> Json:
    """The scores per set and their mean over sets, every set counting the same."""
    mean = {measure: statistics.fmean(getattr(one, measure) for one in found) for measure in MEASURES}
    return {"sets": [asdict(one) for one in found], "mean": mean}


async def _ingest(client: Client, dataset: Dataset, on_progress: OnProgress) -> Tally:
    tally = Tally(total=len(dataset.documents))

    async def send(documents: Sequence[Json], key: str) -> Json:
        return await client.submit_documents(dataset.collection, documents, key)

    def progress() -> None:
        on_progress(f"{dataset.name}: ingesting", tally.done, tally.total)

    await client.ensure_collection(dataset.collection)
    feed = Feed(client, tally, send, name=lambda one: str(one["id"]), on_change=progress)
    await feed.run(batches(dataset.documents, lambda one: len(one["text"])))
    return tally


def _document(one: Json, file: Path) -> Json:
    text, title = _text(one, "text", file), str(one.get("title") or "")
    # A document may be a title alone: its title then is its text.
    return {"id": _text(one, "_id", file), "text": text or title, "title": title or None}


def _text(one: Json, key: str, file: Path) -> str:
    if key not in one:
        raise InvalidInput(f"{file}: every line needs {key!r}, one has only {', '.join(one) or 'nothing'}")
    return str(one[key])


def _turns(history: Sequence[str]) -> tuple[Json, ...]:
    """``user: …`` is the user's; any other speaker is the assistant."""
    turns = []
    for line in history:
        speaker, _, content = line.partition(": ")
        turns.append({"role": "user" if speaker == "user" else "assistant", "content": content or speaker})
    return tuple(turns)


def _lines(file: Path) -> list[Json]:
    return [_json_object(line, f"{file} line {number}") for number, line in _numbered(file) if line]


def _numbered(file: Path) -> list[tuple[int, str]]:
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    with file.open(encoding="utf-8") as lines:
        return [(number, line.strip("\n")) for number, line in enumerate(lines, start=1)]


def _json_object(line: str, where: str) -> Json:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} must be a JSON object, found {line[:40]!r}")
    return value


def _read_judgements(file: Path) -> dict[str, dict[str, float]]:
    gains: dict[str, dict[str, float]] = {}
    for number, line in _numbered(file):
        parts = line.split("\t")
        if len(parts) != 3:
            raise InvalidInput(f"{file} line {number} must be query-id, corpus-id, score between tabs, found {line!r}")
        if not (number == 1 and not _is_number(parts[2])):
            gains.setdefault(parts[0], {})[parts[1]] = _gain(parts[2], f"{file} line {number}")
    return gains


def _gain(text: str, where: str) -> float:
    if not _is_number(text):
        raise InvalidInput(f"{where}: the score must be a number, found {text!r}")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _what_came(place: Path) -> str:
    if not place.is_dir():
        return "there is no such folder"
    names = sorted(one.name for one in place.iterdir())[:8]
    return f"found {', '.join(names) or 'nothing'}"


def _percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that at least ``share`` per cent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(-(-share * len(ordered) // 100), 1) - 1]
