"""What do metrics and the query log add to a search?

    scripts/bench observing [--searches 3000] [--documents 2000] [--model hashing] [--json]

One data folder a mode (off, metadata, full), with the same documents, in one process; bare is the folder of off, with
the metrics silenced. Searches are asked of the modes in turn, one at a time, in an order that changes, so that whatever
slows the machine slows all; no question's vector is in memory. The rows are appended meanwhile, as in a server. No
HTTP: what a request costs besides would only hide the difference. Measured apart: the counting of one search and of one
request by itself, a scrape (of the event loop), and a look at the processes (of a thread).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import structlog

from ragworks import app
from ragworks.api.server import create_api
from ragworks.app import App
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics
from ragworks.settings import load
from ragworks.types import Upload

MODES = ("bare", "off", "metadata", "full")
AGAINST = {"off": "bare", "metadata": "off", "full": "off"}
WARM_UP = 100
WORDS = tuple(
    f"{a}{b}" for a in ("bra", "cor", "del", "fen", "gal", "har", "lim", "mon") for b in ("ka", "lo", "mi", "nu", "po")
)


def text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


class Switched(Metrics):
    """Metrics that count nothing of a search while they are switched off."""

    counting = True


def switched(name: str) -> Callable[..., None]:
    plain = getattr(Metrics, name)

    def report(metrics: Switched, *what: object) -> None:
        if metrics.counting:
            plain(metrics, *what)

    return report


for reported in ("search", "embedding_call", "batch", "question"):
    setattr(Switched, reported, switched(reported))
app.Metrics = Switched  # type: ignore[misc]


def apart(served: App) -> dict[str, float]:
    """What is too small for the difference of two searches, and what no search pays for."""
    create_api(served)  # expects its routes
    metrics = served.metrics

    def search() -> None:
        metrics.batch(8, 0.001)
        metrics.embedding_call("question", 0.001)
        metrics.search({"embed": 0.001, "retrieve": 0.002, "rerank": 0.0, "total": 0.003})
        metrics.question("search", "answered")

    def request() -> None:
        metrics.request_started()
        metrics.request_finished("/v1/collections/{name}/search", "POST", 200, 0.01)

    shown = metrics.render().decode()
    return {
        "search_counted_us": 1e6 * best(search, 5000),
        "request_counted_us": 1e6 * best(request, 5000),
        "scrape_ms": 1e3 * best(metrics.render, 20),
        "series": sum(not line.startswith("#") for line in shown.splitlines()),
        "look_ms": 1e3 * best(Machine(Path()).look, 20),
    }


def best(call: Callable[[], object], times: int) -> float:
    return min(timeit.repeat(call, number=times, repeat=5)) / times


async def filled(stack: AsyncExitStack, folder: Path, mode: str, documents: int, model: str) -> App:
    settings = load(
        environ={}, server={"data": str(folder / mode)}, embeddings_service={"model_name": model},
        query_log={"mode": mode},
    )  # fmt: skip
    served = await stack.enter_async_context(app.build(settings))
    rng = Random(0)
    for start in range(0, documents, 100):
        uploads = [Upload(f"d{n}", f"d{n}", text(rng, 80).encode()) for n in range(start, min(start + 100, documents))]
        receipt = await served.document_processor.process_documents("default", uploads)
        await served.document_processor.finished(receipt.processing_job_id)
    return served


async def measure(searches: int, documents: int, model: str) -> dict[str, float]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    rng = Random(1)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            apps = {mode: await filled(stack, Path(folder), mode, documents, model) for mode in MODES if mode != "bare"}
            apps["bare"] = apps["off"]
            took: dict[str, list[float]] = {mode: [] for mode in MODES}
            for n in range(WARM_UP + searches):
                question = text(rng, 6)
                for mode in rng.sample(MODES, len(MODES)):
                    apps[mode].embeddings_service.clear_cache()
                    Switched.counting = mode != "bare"
                    began = time.perf_counter()
                    await apps[mode].search("default", question)
                    if n >= WARM_UP:
                        took[mode].append(time.perf_counter() - began)
            rows = {mode: len(await one.questions.since(0.0)) for mode, one in apps.items()}
            found = apart(apps["off"])
    found |= {f"{mode}_p50_ms": 1e3 * statistics.median(took[mode]) for mode in MODES}
    found |= {f"{mode}_rows": rows[mode] for mode in MODES}
    for mode, other in AGAINST.items():
        # Of pairs: both were asked the same question within a few milliseconds.
        adds = statistics.median(one - without for one, without in zip(took[mode], took[other], strict=True))
        found[f"{mode}_adds_to_{other}_us"] = 1e6 * adds
        found[f"{mode}_adds_to_{other}_percent_of_p50"] = 100 * adds / statistics.median(took[other])
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
            print(f"{name:40} {value:10.2f}")
