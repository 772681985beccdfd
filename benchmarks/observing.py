"""What do metrics, the query log and traces add to a search?

    scripts/bench observing [--searches 3000] [--documents 2000] [--model hashing] [--runtime inline] [--json]

Searches are asked of one server in five modes in turn, one at a time, in an order that changes, so that whatever
slows the machine slows all: off is without query log and traces, bare with the metrics silenced as well, metadata and
full log the question, traced sends each search as a request of the server would be, to a collector on loopback in a
process of its own. No question's vector is in memory. Rows are appended meanwhile, as ever. No HTTP: what a request
costs besides would only hide the difference. Measured apart: the counting of one search and of one request by itself,
a scrape (of the event loop), and a look at the processes.

A thread of its own sends spans, later, which pairs cannot see: stretches of searches, traced or not in turn, each until
its last span is sent, show what traces cost altogether, in time and in processor time, which other programs change
less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import structlog

from ragworks import app, tracing
from ragworks.api.server import create_api
from ragworks.app import App
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics
from ragworks.exporting import OtlpTracer
from ragworks.settings import TraceSettings, load
from ragworks.types import Upload

MODES = ("bare", "off", "metadata", "full", "traced")
PAIRS = (("off", "bare"), ("traced", "bare"), ("traced", "off"), ("metadata", "off"), ("full", "off"))
WARM_UP = 100
STRETCH = 200
WORDS = tuple(
    f"{a}{b}" for a in ("bra", "cor", "del", "fen", "gal", "har", "lim", "mon") for b in ("ka", "lo", "mi", "nu", "po")
)
COLLECTOR = """
import http.server
class Taken(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): ...
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taken)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


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


@contextmanager
def collector() -> Iterator[None]:
    """Where the environment sends spans: a process that takes them and does nothing with them."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        yield
    finally:
        process.kill()
        process.wait()


class Counting(OtlpTracer):
    """Counts the spans that it is given."""

    spans = 0

    def keep(self, span: tracing.Ended) -> None:
        self.spans += 1
        super().keep(span)

    def flush(self) -> None:
        self._processor.force_flush()


async def filled(stack: AsyncExitStack, folder: str, documents: int, model: str, runtime: str) -> App:
    settings = load(
        environ={}, server={"data": folder}, query_log={"mode": "full"},
        embeddings_service={"model_name": model, "replicas": {"runtime": runtime}},
    )  # fmt: skip
    served = await stack.enter_async_context(app.build(settings))
    rng = Random(0)
    for start in range(0, documents, 100):
        uploads = [Upload(f"d{n}", f"d{n}", text(rng, 80).encode()) for n in range(start, min(start + 100, documents))]
        receipt = await served.document_processor.process_documents("default", uploads)
        await served.document_processor.finished(receipt.processing_job_id)
    return served


async def search(served: App, question: str, tracer: OtlpTracer | None) -> None:
    """As the server does it; the span of the request is the one that its middleware makes."""
    tracing.use(tracer)
    path = "/v1/collections/default/search"
    door = tracing.entry("POST", {"http.request.method": "POST", "url.path": path, "url.scheme": "http"}, "server")
    with door as span:
        await served.search("default", question)
        span.set("http.route", "/v1/collections/{name}/search")
        span.set("http.response.status_code", 200)
    tracing.use(None)


async def paired(served: App, tracer: Counting, searches: int, rng: Random) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {mode: [] for mode in MODES}
    for n in range(WARM_UP + searches):
        question = text(rng, 6)
        for mode in rng.sample(MODES, len(MODES)):
            served.embeddings_service.clear_cache()
            served.questions._mode = mode if mode in ("metadata", "full") else "off"
            Switched.counting = mode != "bare"
            began = time.perf_counter()
            await search(served, question, tracer if mode == "traced" else None)
            if n >= WARM_UP:
                took[mode].append(time.perf_counter() - began)
    served.questions._mode, Switched.counting = "off", True
    return took


async def stretches(served: App, tracer: Counting, searches: int, rng: Random) -> dict[str, float]:
    """By how many per cent a stretch of traced searches takes longer and works more, the sending included."""
    ratios: dict[str, list[float]] = {"longer": [], "more_cpu": []}
    for n in range(max(2, searches // STRETCH)):
        took, worked = {}, {}
        for traced in (True, False) if n % 2 else (False, True):
            began, busy = time.perf_counter(), time.process_time()
            for _ in range(STRETCH):
                await search(served, text(rng, 6), tracer if traced else None)
            if traced:
                await asyncio.to_thread(tracer.flush)
            took[traced], worked[traced] = time.perf_counter() - began, time.process_time() - busy
        ratios["longer"].append(took[True] / took[False])
        ratios["more_cpu"].append(worked[True] / worked[False])
    return {f"traced_stretch_percent_{name}": 100 * (statistics.median(seen) - 1) for name, seen in ratios.items()}


async def measure(searches: int, documents: int, model: str, runtime: str) -> dict[str, float]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    rng = Random(1)
    with tempfile.TemporaryDirectory() as folder, collector():
        async with AsyncExitStack() as stack:
            tracer = Counting(TraceSettings())
            served = await filled(stack, folder, documents, model, runtime)
            took = await paired(served, tracer, searches, rng)
            spans = tracer.spans / (WARM_UP + searches)
            altogether = await stretches(served, tracer, searches, rng)
            found: dict[str, Any] = {**apart(served), "rows": len(await served.questions.since(0.0))}
            await asyncio.to_thread(tracer.close)
    found |= {f"{mode}_p50_ms": 1e3 * statistics.median(took[mode]) for mode in MODES}
    for mode, other in PAIRS:
        # Of pairs: both were asked the same question within a few milliseconds.
        adds = statistics.median(one - without for one, without in zip(took[mode], took[other], strict=True))
        found[f"{mode}_adds_to_{other}_us"] = 1e6 * adds
        found[f"{mode}_adds_to_{other}_percent_of_p50"] = 100 * adds / statistics.median(took[other])
    return found | {"spans_per_search": spans} | altogether


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=3000)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--model", default="hashing", choices=("hashing", "bge-small-en-v1.5"))
    parser.add_argument("--runtime", default="inline", choices=("inline", "process"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.searches, given.documents, given.model, given.runtime))
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:10.2f}")
