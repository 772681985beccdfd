"""How well the extractive generator tells answerable questions from unanswerable ones, over its threshold.

    python benchmarks/abstention.py DATASET_DIR [CONVERSATIONS.jsonl] [--sample 150]

DATASET_DIR holds ``corpus.jsonl`` (_id, text), ``queries.jsonl`` (_id, text, answers) and ``qrels.tsv``. A question
is asked twice: as it is, and with its gold passages taken out of the collection, which makes it unanswerable (or
nearly so: another passage may happen to answer it, so the share abstained has a ceiling below 1).

CONVERSATIONS.jsonl holds ``input`` turns, ``contexts`` and ``answerability``; all contexts together are the collection,
and the last user turn is the question.

Retrieval is dense only, with the bundled model, five passages to an answer.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragworks.models.extractive import Candidate, ExtractiveGenerator, choose
from ragworks.models.onnx_weights import OnnxEmbedder, OnnxScorer
from ragworks.types import Hit, Vectors

THRESHOLDS = [-4.0, -2.0, -1.0, 0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]
PASSAGES = 5


@dataclass
class Case:
    """One ranked question: its answer under any threshold can be read off."""

    candidates: list[Candidate]
    scores: list[float]
    answers: Sequence[str] = field(default_factory=tuple)

    def answer(self, threshold: float) -> str:
        return " ".join(one.text for one in choose(self.candidates, self.scores, threshold))

    def holds_gold(self, threshold: float) -> bool:
        text = self.answer(threshold).lower()
        return any(answer.lower() in text for answer in self.answers)


class Bench:
    def __init__(self) -> None:
        self.embedder = OnnxEmbedder(threads=1)
        self.generator = ExtractiveGenerator(OnnxScorer(threads=1), 0.0)
        self.seconds: list[float] = []

    def ask(
        self, question: str, scores: Any, texts: Sequence[str], without: set[int], answers: Sequence[str] = ()
    ) -> Case:
        order = [int(place) for place in np.argsort(-scores) if int(place) not in without][:PASSAGES]
        hits = [
            Hit(str(at), str(at), float(scores[at]), texts[at], "", None, 0, len(texts[at]), (), {}) for at in order
        ]
        started = time.process_time()
        case = Case(*self.generator.rank(question, hits), answers)
        self.seconds.append(time.process_time() - started)
        return case


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def passages(folder: Path, sample: int) -> None:
    bench = Bench()
    corpus, queries = read(folder / "corpus.jsonl"), read(folder / "queries.jsonl")
    texts = [item["text"] for item in corpus]
    place = {item["_id"]: at for at, item in enumerate(corpus)}
    gold: dict[str, set[int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document = line.split("\t")[:2]
        gold.setdefault(query, set()).add(place[document])
    vectors = bench.embedder.embed(texts, "passage")
    with_gold, without_gold = [], []
    for query in random.Random(0).sample(queries, min(sample, len(queries))):
        scores = vectors @ bench.embedder.embed([query["text"]], "question")[0]
        with_gold.append(bench.ask(query["text"], scores, texts, set(), query["answers"]))
        without_gold.append(bench.ask(query["text"], scores, texts, gold[query["_id"]]))
    show(
        f"{folder.name}: {len(with_gold)} questions, with and without their gold passage",
        with_gold,
        without_gold,
        bench,
    )


def conversations(path: Path, sample: int) -> None:
    bench = Bench()
    tasks = read(path)
    texts = list(dict.fromkeys(context["text"] for task in tasks for context in task["contexts"]))
    vectors = bench.embedder.embed(texts, "passage")
    answerable = [task for task in tasks if task["answerability"] == ["ANSWERABLE"]]
    unanswerable = [task for task in tasks if task["answerability"] == ["UNANSWERABLE"]]
    answerable = random.Random(0).sample(answerable, min(sample // 2, len(answerable)))
    cases = [[converse(bench, task, vectors, texts) for task in group] for group in (answerable, unanswerable)]
    show(f"{path.stem}: {len(answerable)} answerable, {len(unanswerable)} unanswerable last turns", *cases, bench)


def converse(bench: Bench, task: dict[str, Any], vectors: Vectors, texts: Sequence[str]) -> Case:
    turns = [turn["text"] for turn in task["input"] if turn["speaker"] == "user"]
    last, together = bench.embedder.embed([turns[-1], "\n".join(turns)], "question")
    return bench.ask(turns[-1], vectors @ last + 0.5 * (vectors @ together), texts, set())


def show(title: str, answerable: list[Case], unanswerable: list[Case], bench: Bench) -> None:
    print(f"\n{title}; {np.mean(bench.seconds):.2f} CPU-s an answer, worst {max(bench.seconds):.2f}")
    print("threshold  answered  gold span  characters  abstained when unanswerable")
    for threshold in THRESHOLDS:
        answers = [text for case in answerable if (text := case.answer(threshold))]
        gold = share([case.holds_gold(threshold) for case in answerable]) if answerable[0].answers else "    -"
        abstained = share([not case.answer(threshold) for case in unanswerable])
        length = np.mean([len(text) for text in answers]) if answers else 0
        print(f"{threshold:9.1f}  {len(answers) / len(answerable):8.3f}  {gold:>9}  {length:10.0f}  {abstained}")


def share(flags: Sequence[bool]) -> str:
    return f"{np.mean(flags):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("conversations", type=Path, nargs="?")
    parser.add_argument("--sample", type=int, default=150)
    arguments = parser.parse_args()
    passages(arguments.dataset, arguments.sample)
    if arguments.conversations is not None:
        conversations(arguments.conversations, arguments.sample)


if __name__ == "__main__":
    main()
