"""Every file of a folder in one call to a real server, while `/livez` is asked every 20 ms.

Usage: python benchmarks/corpus.py DIR [--only-documents] [--model bundled|hashing] [--json]. Says of each file whether
it was indexed or with which code and message it was refused, and how the server answered meanwhile. Exit code 1 if a
file has neither, or if an answer of `/livez` took longer than 100 ms. Caveats: the probe opens a connection each time
and shares the machine's cores with the server; seconds of a file are seen through the job's events, five a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from ragworks.bench.machine import commit, machine

LIMIT_MS = 100.0
PROBE_EVERY_S = 0.02
WATCH_EVERY_S = 0.1
DEADLINE_S = 900.0
NOT_DOCUMENTS = ("manifest.tsv",)
Answer = tuple[float, float]
"""When `/livez` was asked, in seconds from the start, and how long its answer took, in milliseconds."""

ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class File:
    """What became of a file. ``seconds``: from being taken up to its end; ``code``: why it was refused, if it was."""

    name: str
    status: str
    seconds: float
    code: str = ""
    message: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only-documents", action="store_true", help="leave out *.gt.* and manifest.tsv")
    parser.add_argument("--model", choices=("bundled", "hashing"), default="bundled")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    paths = [path for path in sorted(given.folder.rglob("*")) if path.is_file()]
    if given.only_documents:
        paths = [path for path in paths if ".gt." not in path.name and path.name not in NOT_DOCUMENTS]
    with tempfile.TemporaryDirectory(prefix="ragworks-corpus-") as folder, running(Path(folder), given.model) as server:
        url = asyncio.run(ready(server, Path(folder) / "data"))
        with probed(url) as answers, watched(server.pid) as memory:
            started = time.perf_counter()
            files = asyncio.run(ingest(url, given.folder, paths))
            seconds = time.perf_counter() - started
        doctor = httpx.get(f"{url}/v1/doctor", timeout=DEADLINE_S).json()
        lag_ms = worst_lag_ms(url)
    found = {**report(files, seconds, answers, memory, doctor), "worst_loop_lag_ms": lag_ms}
    print(json.dumps(found, indent=2, ensure_ascii=False) if given.json else table(found))
    sys.exit(0 if found["all_accounted_for"] and found["livez_met"] and doctor["healthy"] else 1)


@contextmanager
def running(folder: Path, model: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server on ``folder / "data"``, with nothing of the environment's settings but the ``settings`` given here."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAGWORKS_")}
    environment |= {f"RAGWORKS_{key}": value for key, value in settings.items()}
    if model == "hashing":
        environment["RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME"] = "hashing"
    command = [sys.executable, "-m", "ragworks", "serve", "--port", "0", "--data", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield server
    finally:
        server.terminate()
        server.wait()


async def ready(server: subprocess.Popen[bytes], data: Path) -> str:
    """The URL, once every service is up."""
    async with httpx.AsyncClient(timeout=30) as client:
        while server.poll() is None:
            with contextlib.suppress(OSError, ValueError, httpx.TransportError):
                url = str(json.loads((data / "server.json").read_text(encoding="utf-8"))["url"])
                found = (await client.get(f"{url}/readyz?verbose")).json()
                if found.get("ready") and not found.get("services"):
                    return url
            await asyncio.sleep(0.05)
    raise SystemExit(f"the server ended with exit code {server.returncode}")


async def ingest(url: str, folder: Path, paths: Sequence[Path]) -> list[File]:
    """All files in one request, then their job to its end."""
    names = [path.relative_to(folder).as_posix() for path in paths]
    files = [
        ("files", (name, path.read_bytes(), "application/octet-stream"))
        for name, path in zip(names, paths, strict=True)
    ]
    began, ended = dict[str, float](), dict[str, File]()
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        accepted = await client.post("/v1/collections/default/documents", files=files)
        if accepted.status_code != 202:
            raise SystemExit(f"the submission was answered with {accepted.status_code}: {accepted.text}")
        async with client.stream("GET", f"{accepted.headers['location']}/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    note(json.loads(line.removeprefix("data: ")), began, ended)
    return [ended.get(name, File(name, "unknown", 0.0)) for name in names]


def note(job: dict[str, Any], began: dict[str, float], ended: dict[str, File]) -> None:
    now = time.perf_counter()
    for one in job["documents"]:
        name = one["name"]
        if one["status"] != "queued":
            began.setdefault(name, now)
        if one["status"] in ENDED and name not in ended:
            error = one["error"] or {"code": "", "message": ""}
            seconds = round(now - began[name], 1)
            ended[name] = File(name, one["status"], seconds, error["code"], error["message"])


@contextmanager
def probed(url: str) -> Iterator[list[Answer]]:
    """Each answer of `/livez` while the context lasts, asked from a process of its own."""
    answers: list[Answer] = []
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=probe, args=(url, theirs))
    process.start()
    ours.recv()
    try:
        yield answers
    finally:
        ours.send("stop")
        answers += ours.recv()
        process.join()


def probe(url: str, pipe: Connection) -> None:
    host, answers = urlsplit(url).netloc, list[Answer]()
    pipe.send("started")
    due = began = time.perf_counter()
    while not pipe.poll():
        started = time.perf_counter()
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", "/livez")
        response = connection.getresponse()
        response.read()
        connection.close()
        took_ms = (time.perf_counter() - started) * 1000 if response.status == 200 else float("inf")
        answers.append((started - began, took_ms))
        due = max(due + PROBE_EVERY_S, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))
    pipe.send(answers)


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Resident bytes of the server with its children, ten times a second; from a process, so as to disturb nobody."""
    seen: list[int] = []
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=watch, args=(pid, theirs))
    process.start()
    try:
        yield seen
    finally:
        ours.send("stop")
        seen += ours.recv()
        process.join()


def watch(pid: int, pipe: Connection) -> None:
    seen, server = list[int](), psutil.Process(pid)
    while not pipe.poll(WATCH_EVERY_S):
        total = 0
        for one in [server, *server.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        seen.append(total)
    pipe.send(seen)


def worst_lag_ms(url: str) -> float:
    """How late the server's event loop woke at worst, by its own account."""
    services = httpx.get(f"{url}/v1/services", timeout=DEADLINE_S).json()["data"]
    api = next(one for one in services if one["name"] == "orchestration_api")
    return round(float(api["stats"]["worst_loop_lag_s"]) * 1000, 1)


def report(
    files: list[File], seconds: float, answers: list[Answer], memory: list[int], doctor: dict[str, Any]
) -> dict[str, Any]:
    took = [ms for _, ms in answers]
    centiles = statistics.quantiles(took, n=100)
    return {
        "machine": machine(),
        "commit": commit(),
        "files": len(files),
        "indexed": sum(one.status == "completed" for one in files),
        "refused": sum(one.status == "failed" for one in files),
        "all_accounted_for": all(one.status == "completed" or (one.code and one.message) for one in files),
        "seconds": round(seconds, 1),
        "livez": {
            "asked": len(answers),
            "p50_ms": round(centiles[49], 1),
            "p99_ms": round(centiles[98], 1),
            "max_ms": round(max(took), 1),
            "over_50_ms": sum(one > LIMIT_MS / 2 for one in took),
            "over_100_ms": sum(one > LIMIT_MS for one in took),
            "slow": [(round(at, 2), round(ms)) for at, ms in answers if ms > LIMIT_MS / 2],
        },
        "livez_met": max(took) <= LIMIT_MS,
        "peak_rss_mb": round(max(memory, default=0) / 1e6),
        "doctor": doctor,
        "each": [asdict(one) for one in files],
    }


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}"]
    lines += [
        f"{one['name'][:50]:50} {one['seconds']:>6} s  {one['code'] or 'indexed'}{': ' if one['message'] else ''}"
        f"{one['message'][:90]}"
        for one in found["each"]
    ]
    keys = ("files", "indexed", "refused", "seconds", "livez", "worst_loop_lag_ms", "peak_rss_mb")
    lines += [f"{key:18}{found[key]}" for key in keys]
    return "\n".join([*lines, f"doctor            {found['doctor']}"])


if __name__ == "__main__":
    main()
