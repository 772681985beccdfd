"""How far off is `estimated_completion_time`? Jobs of different kind and size against a real server, one after another.

Usage: python benchmarks/estimates.py [--files DIR] [--texts FILE.jsonl ...] [--jobs 40] [--beside 0.25] [--warm-up 10]
[--model bundled|hashing] [--json]. DIR holds files of mixed formats, each FILE texts as of BEIR (`_id`, `title`,
`text`). A job draws 1 to 100 of them, of one source or of two, none of them twice, but for one job in twelve, which
repeats the one before under other names; some are submitted while the one before still runs. The error of a job is
|predicted - actual| / actual, actual from the accepted request to the end of its last document, by the server's clock.
Held is the share of jobs ended within their `estimated_completion_interval`, width its median length as a share of
the estimate; half-way: whether what was left at the event with half of the documents ended was within what it told
(by the clocks of both, on one machine). Jobs of the warm-up are reported apart: there the server has its priors only.
Caveat: other programs on the same cores change the speed between estimate and end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
from corpus import DEADLINE_S, ENDED, NOT_DOCUMENTS, ready, running

from ragworks.bench.machine import commit, machine

SIZES = (1, 1, 2, 5, 10, 20, 50, 100)
REPEATED = 1 / 12

Drawn = tuple[str, list[tuple[str, bytes]]]
"""What a job is of, and its documents: (name, bytes)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one kind: (name, bytes)."""

    name: str
    documents: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Job:
    source: str
    documents: int
    failed: int
    beside: bool
    predicted_s: float
    actual_s: float
    low_s: float
    high_s: float
    halfway_held: bool | None
    """Whether the rest took as long as the interval said when half of the documents had ended; None if never told."""

    @property
    def held(self) -> bool:
        return self.low_s <= self.actual_s <= self.high_s

    @property
    def error(self) -> float:
        return abs(self.predicted_s - self.actual_s) / self.actual_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="a folder of documents of mixed formats")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="texts, one JSON object a line")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--beside", type=float, default=0.25, help="share of jobs submitted while another runs")
    parser.add_argument("--warm-up", type=int, default=10, help="jobs that are reported apart")
    parser.add_argument("--model", choices=("bundled", "hashing"), default="bundled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sources = [texts_of(path) for path in given.texts] + ([files_of(given.files)] if given.files else [])
    if not sources:
        parser.error("give --files or --texts")
    with tempfile.TemporaryDirectory(prefix="ragworks-estimates-") as folder:
        jobs, own = asyncio.run(measured(Path(folder), sources, given))
    found = report(jobs, own, given)
    print(json.dumps(found, indent=2) if given.json else table(found))


def texts_of(path: Path) -> Source:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    name = path.parent.name
    documents = [
        (f"{name}/{row['_id']}.txt".replace("..", "."), f"{row.get('title', '')}\n\n{row['text']}".encode())
        for row in rows
        if row["text"].strip()
    ]
    return Source(name, documents)


def files_of(folder: Path) -> Source:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in paths if ".gt." not in path.name and path.name not in NOT_DOCUMENTS]
    return Source("files", [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in kept])


async def measured(
    folder: Path, sources: list[Source], given: argparse.Namespace
) -> tuple[list[Job], dict[str, float | None]]:
    rng = Random(given.seed)
    jobs: list[asyncio.Task[Job]] = []
    drawing: Drawn = "", []
    with running(folder, given.model) as server:
        url = await ready(server, folder / "data")
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            for _ in range(given.jobs):
                source, documents = drawing = drawn(rng, sources, drawing)
                beside = not source.endswith("again") and bool(jobs) and rng.random() < given.beside
                if not beside:
                    await asyncio.gather(*jobs)
                jobs.append(asyncio.create_task(run(client, source, documents, beside)))
                await asyncio.sleep(rng.uniform(0.1, 1.0))
            done = [await job for job in jobs]
            await asyncio.sleep(6)  # the server counts its own errors as it checks its health, every 5 s
            services = (await client.get("/v1/services")).json()["data"]
    stats = next(one for one in services if one["name"] == "document_processor")["stats"]
    return done, {name: stats[name] for name in ("estimate_error_median", "estimate_error_p90", "estimate_coverage")}


def drawn(rng: Random, sources: list[Source], before: Drawn) -> Drawn:
    """A job of documents that are taken from their sources, or the one before again under other names."""
    if before[1] and rng.random() < REPEATED:
        return f"{before[0]} again", [(f"again/{name}", content) for name, content in before[1]]
    count = rng.choice(SIZES)
    left = [source for source in sources if source.documents]
    chosen = rng.sample(left, k=min(rng.choice((1, 2)), len(left)))
    documents = []
    for source in chosen:
        share = min(len(source.documents), -(-count // len(chosen)))
        documents += [source.documents.pop(rng.randrange(len(source.documents))) for _ in range(share)]
    return "+".join(source.name for source in chosen), documents


async def run(client: httpx.AsyncClient, source: str, documents: list[tuple[str, bytes]], beside: bool) -> Job:
    files = [("files", (name, content, "application/octet-stream")) for name, content in documents]
    accepted = await client.post("/v1/collections/default/documents", files=files)
    if accepted.status_code != 202:
        raise SystemExit(f"the submission was answered with {accepted.status_code}: {accepted.text}")
    receipt = accepted.json()
    predicted, interval = float(receipt["estimated_completion_time"]), receipt["estimated_completion_interval"]
    halfway: tuple[float, dict[str, float]] | None = None
    async with client.stream("GET", f"{accepted.headers['location']}/events") as events:
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                job = json.loads(line.removeprefix("data: "))
                told, counts = job["estimated_completion_interval"], job["file_counts"]
                if told and halfway is None and counts["in_progress"] <= counts["total"] / 2:
                    halfway = time.time(), told
    if job["status"] not in ENDED:
        raise SystemExit(f"the events of job {job['id']} broke off")
    failed = job["file_counts"]["failed"]
    actual = job["finished_at"] - job["created_at"]
    rest = halfway and halfway[1]["low"] <= job["finished_at"] - halfway[0] <= halfway[1]["high"]
    return Job(source, len(documents), failed, beside, predicted, actual, interval["low"], interval["high"], rest)


def report(jobs: list[Job], own: dict[str, float | None], given: argparse.Namespace) -> dict[str, Any]:
    cold, warm = jobs[: given.warm_up], jobs[given.warm_up :]
    return {
        "machine": machine(),
        "commit": commit(),
        "model": given.model,
        "jobs": len(jobs),
        "warm_up": summary(cold),
        "all": summary(warm),
        "alone": summary([job for job in warm if not job.beside]),
        "beside_another": summary([job for job in warm if job.beside]),
        "one_or_two_documents": summary([job for job in warm if job.documents <= 2]),
        "five_to_twenty": summary([job for job in warm if 2 < job.documents <= 20]),
        "fifty_and_more": summary([job for job in warm if job.documents > 20]),
        "of_the_server": own,
        "each": [asdict(job) | {"error": round(job.error, 3)} for job in jobs],
    }


def summary(jobs: Sequence[Job]) -> dict[str, Any]:
    errors = sorted(job.error for job in jobs)
    halfway = [job.halfway_held for job in jobs if job.halfway_held is not None]
    if not errors:
        return {"jobs": 0}
    return {
        "jobs": len(errors),
        "error_median": round(statistics.median(errors), 3),
        "error_p90": round(errors[min(len(errors) - 1, len(errors) * 9 // 10)], 3),
        "actual_s_median": round(statistics.median(job.actual_s for job in jobs), 2),
        "coverage": round(statistics.mean(job.held for job in jobs), 3),
        "width_median": round(statistics.median((job.high_s - job.low_s) / job.predicted_s for job in jobs), 2),
        "halfway_jobs": len(halfway),
        "halfway_coverage": round(statistics.mean(halfway), 3) if halfway else None,
    }


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, model {found['model']}"]
    for name, one in found.items():
        if isinstance(one, dict) and one.get("jobs"):
            lines.append(
                f"{name:22} {one['jobs']:3} jobs   median {one['error_median']:.2f}   p90 {one['error_p90']:.2f}   "
                f"held {one['coverage']:.2f}   width {one['width_median']:.2f}   "
                f"half-way held {one['halfway_coverage']} of {one['halfway_jobs']}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
