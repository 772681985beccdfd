"""What callers notice when the load of a service that scales itself grows in a step, and ends.

Usage: python benchmarks/autoscaling.py [waits|computes|ingests|all] [--times short|default] [--json] [--svg NAME].
Each is a real `ragworks serve` with one scaled service, called over HTTP. What one replica can do is measured first,
then calls come at random: for a while at a low load, then in a step at a high one, then none until one replica is left.

waits     1 to 8 times one replica: engines of embeddings_service that each ask a slow model server on loopback, one
          text after another, 0.25 s each. (Chat endpoints are replicas of a fixed list, which nothing can add to.)
computes  0.1 to 1.5 times one replica: engines with the bundled model and one thread each, four passages a call.
ingests   0.1 to 1.5 times one worker: documents submitted one by one, until their job has ended.

The last two are measured with two replicas first, and take no more than those bear. (A service at 0.4 times one replica
may have two already, for its headroom: the step begins lower, and late enough for what the begin was given to be gone.)

`--times short` decides every 2 s, with a calm of 20 s and a cooldown of 10 s, so that all take nine minutes; `default`
are the settings' defaults (30 s, 600 s, 300 s) and half an hour each. The 95th percentile (of the calls that ended
within 3 s) has recovered once it stays within twice that of before the step. Exit code 1 if a call is lost, an attempt
at a document did not end with the document, or a recorded decision is made differently when asked again.
Caveats: server, replicas and callers share the cores; an act is seen up to half a second late.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import httpx
import waiting
from autoscaling_drawing import drawn
from autoscaling_runs import Run, Scenario
from corpus import ready, running
from fpdf import FPDF

from ragworks.bench.machine import commit, machine

DEADLINE_S = 600.0
ENDED = ("completed", "failed", "cancelled")
TIMES = {
    "short": {"scaling": "monitoring_interval = 2\nstable_duration = 10\ncooldown = 10\n", "of": (50.0, 60.0, 120.0)},
    "default": {"scaling": "", "of": (300.0, 600.0, 1500.0)},
}
WAITS = """
[implementations]
waiting = "waiting:embeddings"
[embeddings_service]
model_name = "hashing"
batch_size = 1
[embeddings_service.replicas]
implementation = "waiting"
runtime = "process"
max_instances = 16
[embeddings_service.scaling]
max_fed = 16
"""
COMPUTES = """
[embeddings_service]
threads = 1
[embeddings_service.replicas]
max_instances = 2
[embeddings_service.scaling]
max_fed = 2
"""
INGESTS = """
[embeddings_service]
model_name = "hashing"
[document_processor]
workers = 1
[document_processor.replicas]
max_instances = 2
[document_processor.scaling]
enabled = true
max_fed = 2
"""
WORDS = ("engine", "battery", "warehouse", "invoice", "turbine", "harbour", "policy", "ledger", "orbit", "meadow")


async def wait(http: httpx.AsyncClient, number: int) -> None:
    await _embedded(http, "hashing", [f"text {number}"])


async def compute(http: httpx.AsyncClient, number: int) -> None:
    rng = Random(number)
    await _embedded(http, "bge-small-en-v1.5", [" ".join(rng.choices(WORDS, k=150)) for _ in range(4)])


async def _embedded(http: httpx.AsyncClient, model: str, texts: list[str]) -> None:
    answer = await http.post("/v1/embeddings", json={"model": model, "input": texts, "encoding_format": "base64"})
    assert len(answer.raise_for_status().json()["data"]) == len(texts)


def document() -> bytes:
    """A PDF that takes a worker about half a second."""
    pdf, rng = FPDF(), Random(0)
    pdf.set_font("helvetica", size=9)
    for _ in range(30):
        pdf.add_page()
        pdf.multi_cell(0, 4, " ".join(rng.choices(WORDS, k=400)))
    return bytes(pdf.output())


class Ingesting:
    def __init__(self) -> None:
        self._document = document()

    async def __call__(self, http: httpx.AsyncClient, number: int) -> None:
        """The same document again would be recognised by its bytes, so each ends in a comment of its own."""
        file = io.BytesIO(self._document + b"\n%% %d\n" % number)
        accepted = await http.post("/v1/collections/default/documents", files={"files": (f"{number}.pdf", file)})
        job = accepted.raise_for_status().headers["location"]
        async with http.stream("GET", f"{job}/events") as events:
            async for _ in events.aiter_lines():
                pass
        found = (await http.get(job)).raise_for_status().json()
        assert [one["status"] for one in found["documents"]] == ["completed"], found["documents"]


def scenarios(times: str) -> dict[str, Scenario]:
    scaling, (low_s, high_s, idle_s) = str(TIMES[times]["scaling"]), TIMES[times]["of"]
    engines, readers = "embeddings_service", "document_processor"
    span: Any = {"low_s": low_s, "high_s": high_s, "idle_s": idle_s}
    made = (
        Scenario("waits", engines, WAITS + scaling, wait, 1.0, 8.0, **span),
        Scenario("computes", engines, COMPUTES + scaling, compute, 0.1, 1.5, together=2, **span),
        Scenario("ingests", readers, INGESTS + scaling, Ingesting(), 0.1, 1.5, together=2, **span),
    )
    return {one.name: one for one in made}


def measured(scenario: Scenario, svg: str | None) -> dict[str, Any]:
    run, broken = asyncio.run(_run(scenario))
    if svg:
        Path(f"{svg}-{scenario.name}.svg").write_text(drawn(run.line, run.acts(), scenario.name), encoding="utf-8")
    return {**run.result(), "leases_broken": broken}


async def _run(scenario: Scenario) -> tuple[Run, int]:
    with tempfile.TemporaryDirectory(prefix="ragworks-autoscaling-") as name:
        folder = Path(name)
        (folder / "ragworks.toml").write_text(scenario.toml)
        async with waiting.slow_server() as slow:
            os.environ |= {waiting.URL: slow, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
            with running(folder, "") as server:
                url = await ready(server, folder / "data")
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
                async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=limits) as http:
                    run = Run(scenario, http)
                    await run.go()
                    return run, leases_broken((await http.get("/metrics")).text)


def leases_broken(metrics: str) -> int:
    """Attempts at a document that did not end with the document."""
    found = re.findall(r'^rag_documents_total\{outcome="(?:retried|cancelled)"\} (\S+)', metrics, re.MULTILINE)
    return int(sum(map(float, found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", choices=("waits", "computes", "ingests", "all"), default="all")
    parser.add_argument("--times", choices=tuple(TIMES), default="short")
    parser.add_argument("--svg", metavar="NAME", help="write pictures to NAME-SCENARIO.svg")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "commit": commit(), "times": given.times}
    for name, scenario in scenarios(given.times).items():
        if given.scenario in (name, "all"):
            found[name] = measured(scenario, given.svg)
            if not given.json:
                print(
                    "\n".join([f"\n{name}", *(f"  {key}: {value}" for key, value in found[name].items())]), flush=True
                )
    print(json.dumps(found, indent=2) if given.json else f"\n{found['machine']}, commit {found['commit']}")
    results = [one for one in found.values() if isinstance(one, dict)]
    bad = any(one["lost"] or one["leases_broken"] or one["decisions"] > one["replayed_to_the_same"] for one in results)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
