"""How much of the passages that answer a question lies in the chunks that search brings, and how much else does.

Usage: python benchmarks/chunking.py DIR [--tokens 128,200,256,384,512] [--top 5] [--json]. DIR holds NAME.md and
NAME.questions.jsonl {question, references: [{content, start_index, end_index}]} (Chroma's chunking evaluation). Each
text is ingested by itself, in a new data folder per chunk size, by the path that a server takes; then every question
is searched by words alone, and by words and vectors. Recall, precision and IoU are of characters, means over questions,
as in Chroma's report (Smith and Troynikov 2024). Peers in the same run, over the same BM25 index: fixed windows, and as
many whole sentences as fit. Caveats: the questions were made by a language model; precision depends on --top as much as
on the chunks; two texts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ragworks
from ragworks.bench.machine import commit, machine
from ragworks.storage.word_index import Bm25Index

Span = tuple[int, int]
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", default="128,200,256,384,512")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for text in sorted(given.folder.glob("*.md")):
        lines = text.with_suffix(".questions.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [json.loads(line) for line in lines]
        for tokens in map(int, given.tokens.split(",")):
            rows += asyncio.run(ours(text, asked, tokens, given.top))
        for size in (800, 1600):
            rows += peers(text, asked, size, given.top)
    found = {"machine": machine(), "commit": commit(), "top": given.top, "rows": rows}
    print(json.dumps(found, indent=2) if given.json else table(found))


async def ours(path: Path, asked: Sequence[dict[str, Any]], tokens: int, top: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="ragworks-chunking-") as data:
        async with ragworks.open(data, document_processor={"chunk_tokens": tokens}) as works:
            await works.ingest(path)
            (document,) = (await works.documents()).data
            rows = []
            for mode in ("lexical", "hybrid"):
                spans = [
                    [(hit.start, hit.end) for hit in (await works.search(one["question"], top_k=top, mode=mode)).hits]
                    for one in asked
                ]
                length = round(document.size_bytes / document.chunk_count)
                rows.append(scored(path.stem, f"ragworks {tokens} tokens", length, mode, asked, spans))
            return rows


def peers(path: Path, asked: Sequence[dict[str, Any]], size: int, top: int) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    rows = []
    for name, cut in (("fixed", fixed), ("sentences", sentences)):
        spans = list(cut(text, size))
        with tempfile.TemporaryDirectory(prefix="ragworks-chunking-") as folder:
            index = Bm25Index(Path(folder))
            index.apply([], [(0, at, text[start:end]) for at, (start, end) in enumerate(spans)])
            brought = [[spans[key] for key, _ in index.search(one["question"], top)] for one in asked]
            index.close()
        rows.append(
            scored(path.stem, f"{name} {size} characters", round(len(text) / len(spans)), "lexical", asked, brought)
        )
    return rows


def fixed(text: str, size: int) -> Iterator[Span]:
    for start in range(0, len(text), size):
        yield start, min(len(text), start + size)


def sentences(text: str, size: int) -> Iterator[Span]:
    """Whole sentences, as many as fit."""
    start = end = 0
    for stop in [*(found.end() for found in SENTENCE_END.finditer(text)), len(text)]:
        if end > start and stop - start > size:
            yield start, end
            start = end
        end = stop
    yield start, end


def scored(
    text: str, chunker: str, length: int, mode: str, asked: Sequence[dict[str, Any]], brought: Sequence[Sequence[Span]]
) -> dict[str, Any]:
    each = [
        overlap([(one["start_index"], one["end_index"]) for one in question["references"]], spans)
        for question, spans in zip(asked, brought, strict=True)
    ]
    recall, precision, iou = (round(100 * statistics.mean(part), 1) for part in zip(*each, strict=True))
    return {
        "text": text,
        "chunker": chunker,
        "mean_characters": length,
        "mode": mode,
        "recall": recall,
        "precision": precision,
        "iou": iou,
    }


def overlap(wanted: Sequence[Span], brought: Sequence[Span]) -> tuple[float, float, float]:
    """Recall, precision and intersection over union of the characters."""
    there = {at for start, end in wanted for at in range(start, end)}
    here = {at for start, end in brought for at in range(start, end)}
    both = len(there & here)
    return both / len(there), both / max(1, len(here)), both / len(there | here)


def table(found: dict[str, Any]) -> str:
    head = f"{'text':20} {'chunker':24} {'mean chars':>10} {'mode':8} {'recall':>7} {'precision':>10} {'IoU':>6}"
    rows = [
        f"{row['text']:20} {row['chunker']:24} {row['mean_characters']:>10} {row['mode']:8} {row['recall']:>7} "
        f"{row['precision']:>10} {row['iou']:>6}"
        for row in found["rows"]
    ]
    return "\n".join([f"{found['machine']}, commit {found['commit']}, top {found['top']}", head, *rows])


if __name__ == "__main__":
    main()
