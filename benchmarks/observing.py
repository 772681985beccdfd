"""What does the query log add to a search?

    scripts/bench observing [--searches 3000] [--documents 2000] [--model hashing] [--json]

One data folder a mode (off, metadata, full), with the same documents, in one process. Searches are asked of the three
in turn, one at a time, in an order that changes, so that whatever slows the machine slows all. The rows are appended
meanwhile, as in a server. No HTTP: what a request costs besides would only hide the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import structlog

from ragworks.app import App, build
from ragworks.settings import load
from ragworks.types import Upload

MODES = ("off", "metadata", "full")
WARM_UP = 100
WORDS = tuple(
    f"{a}{b}" for a in ("bra", "cor", "del", "fen", "gal", "har", "lim", "mon") for b in ("ka", "lo", "mi", "nu", "po")
)


def text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


async def filled(stack: AsyncExitStack, folder: Path, mode: str, documents: int, model: str) -> App:
    settings = load(
        environ={}, server={"data": str(folder / mode)}, embeddings_service={"model_name": model},
        query_log={"mode": mode},
    )  # fmt: skip
    app = await stack.enter_async_context(build(settings))
    rng = Random(0)
    for start in range(0, documents, 100):
        uploads = [Upload(f"d{n}", f"d{n}", text(rng, 80).encode()) for n in range(start, min(start + 100, documents))]
        receipt = await app.document_processor.process_documents("default", uploads)
        await app.document_processor.finished(receipt.processing_job_id)
    return app


async def measure(searches: int, documents: int, model: str) -> dict[str, float]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    rng = Random(1)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            apps = {mode: await filled(stack, Path(folder), mode, documents, model) for mode in MODES}
            took: dict[str, list[float]] = {mode: [] for mode in MODES}
            for n in range(WARM_UP + searches):
                question = text(rng, 6)
                for mode in rng.sample(MODES, len(MODES)):
                    began = time.perf_counter()
                    await apps[mode].search("default", question)
                    if n >= WARM_UP:
                        took[mode].append(time.perf_counter() - began)
            rows = {mode: len(await app.questions.since(0.0)) for mode, app in apps.items()}
    found = {f"{mode}_p50_ms": 1e3 * statistics.median(took[mode]) for mode in MODES}
    found |= {f"{mode}_rows": rows[mode] for mode in MODES}
    for mode in MODES[1:]:
        # Of pairs: both were asked the same question within a few milliseconds.
        differences = [one - other for one, other in zip(took[mode], took["off"], strict=True)]
        found[f"{mode}_adds_us"] = 1e6 * statistics.median(differences)
        found[f"{mode}_adds_percent_of_p50"] = 100 * statistics.median(differences) / statistics.median(took["off"])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=3000)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--model", default="hashing", choices=("hashing", "bge-small-en-v1.5"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.searches, given.documents, given.model))
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:10.2f}")
