"""Kills a server at random instants while it ingests, and counts what was lost, doubled, orphaned or half shown.

Usage: python benchmarks/crash.py [--kills 200] [--documents 300] [--seed 0] [--model hashing|bundled] [--data DIR]
[--json]. Only the server is killed (SIGKILL); its workers must die by themselves. Documents change round by round, so
that every kill meets ingestion. After each restart every visible document is compared with the rounds it may show, and
`/v1/doctor` is asked; at the end everything is compared with a run of the last round that nobody disturbed. Exit code
1 if any count of faults is not zero. Caveats: a kill is no power cut, the kernel keeps what was written; fsync is shown
by a test, not here. The seed fixes texts, batches and planned delays, but not where in the server a delay ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
from crash_documents import CHUNK_TOKENS, COLLECTIONS, Documents
from crash_ledger import Batch, Ledger, differences, leftovers, shown

MARK = "CRASH_BENCHMARK_RUN"  # in the environment of the server, and so of every process that it starts
DEADLINE_S = 120.0
ORPHAN_S = 5.0  # in which a worker must have noticed that its server is gone
POLL_S = 0.02
SAMPLE = 10  # documents read over HTTP after each restart, besides all of them in the rows
FAULTS = ("lost", "duplicates", "orphans", "half_visible", "unhealthy", "leftover_children", "different")
# When a kill comes: (what it follows, seconds after that, weight). Half of them follow an acknowledgement or meet a
# request under way, where a promise is made; some meet a server that is still recovering from the last one.
INSTANTS: tuple[tuple[str, Callable[[random.Random], float], int], ...] = (
    ("acknowledged", lambda rng: rng.expovariate(1 / 0.02), 35),
    ("sent", lambda rng: rng.uniform(0, 0.03), 20),
    ("ready", lambda rng: rng.uniform(0, 1.5), 30),
    ("started", lambda rng: rng.uniform(0, 1.2), 15),
)
ENDED = ("completed", "failed", "cancelled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=("hashing", "bundled"), default="hashing")
    parser.add_argument("--data", type=Path, help="keep the data folders and the server's log below this folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragworks-crash-")))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, given.kills, Documents(given.seed, given.documents, bundled=given.model == "bundled"), given)
        found = asyncio.run(run.all())
    print(json.dumps(found, indent=2) if given.json else table(found))
    sys.exit(1 if any(found["faults"].values()) else 0)


class Server:
    """One life of a server process on a data folder."""

    def __init__(self, folder: Path, name: str, model: str) -> None:
        self.data, self._log = folder / name, folder / f"{name}.log"
        self.token = uuid.uuid4().hex
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAGWORKS_")}
        environment[MARK] = self.token
        environment["RAGWORKS_DOCUMENT_PROCESSOR__CHUNK_TOKENS"] = str(CHUNK_TOKENS)
        if model == "hashing":
            environment["RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME"] = "hashing"
        command = [sys.executable, "-m", "ragworks", "serve", "--port", "0", "--data", str(self.data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)

    async def ready(self) -> str:
        """The URL, once a search and a submission would be answered."""
        deadline = time.monotonic() + DEADLINE_S
        async with httpx.AsyncClient(timeout=30) as http:
            while time.monotonic() < deadline and self._process.poll() is None:
                if (url := self._url()) and await _all_up(http, url):
                    return url
                await asyncio.sleep(POLL_S)
        said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(f"the server did not come up (exit code {self._process.poll()}):\n{said}")

    def kill(self) -> int:
        """SIGKILL to this process alone; how many of its children are still there when they should be gone."""
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + ORPHAN_S
        while (left := sum(1 for _ in self._relatives())) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return left

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE_S)

    def _url(self) -> str | None:
        try:
            found = json.loads((self.data / "server.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return str(found["url"]) if found["pid"] == self._process.pid else None

    def _relatives(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.token and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


class Run:
    """All lives of one data folder, with what is known about it from outside."""

    def __init__(self, folder: Path, kills: int, documents: Documents, given: argparse.Namespace) -> None:
        self.folder, self.kills, self.documents, self.given = folder, kills, documents, given
        self.ledger = Ledger(documents)
        self.rng = random.Random(f"{given.seed}/run")
        self.counts: Counter[str] = Counter()
        self.round = 0
        self.waiting = set(documents.keys)
        self.unanswered: list[Batch] = []
        self.news = {name: asyncio.Event() for name, *_ in INSTANTS}

    async def all(self) -> dict[str, Any]:
        """Live and die as often as asked, finish the last round, compare it with an undisturbed one."""
        started = time.perf_counter()
        while self.counts["kills"] < self.kills:
            await self._life()
        async with self._served("data") as (http, server):
            await self._look(http)
            await self._finish(http)
            await self._look(http)
            await self._until_idle(http)
            server.stop()
        self._look_at_the_end()
        seconds = time.perf_counter() - started
        await self._undisturbed()
        for one in differences(self.folder / "data", self.folder / "undisturbed"):
            self.ledger.fault("different", one)
        return self._report(seconds)

    # lives

    async def _life(self) -> None:
        after, delay, _ = self.rng.choices(INSTANTS, [weight for *_, weight in INSTANTS])[0]
        times, delay_s = self.rng.randint(1, 12), delay(self.rng)
        self.counts[f"kills after {after}"] += 1
        for event in self.news.values():
            event.clear()
        server = Server(self.folder, "data", self.given.model)
        try:
            if after == "started":
                await asyncio.sleep(delay_s)
            else:
                await self._live(server, after, times, delay_s)
        finally:
            self._kill(server)

    async def _live(self, server: Server, after: str, times: int, delay_s: float) -> None:
        """Return at the planned instant, with requests under way."""
        async with httpx.AsyncClient(base_url=await server.ready(), timeout=DEADLINE_S) as http:
            self.counts["restarts"] += 1
            await self._look(http)
            feeding = asyncio.create_task(self._feed(http), name="feed")
            try:
                await self._instant(after, times, delay_s, feeding)
                self._kill(server)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    async def _instant(self, after: str, times: int, delay_s: float, feeding: asyncio.Task[None]) -> None:
        """Return at the planned instant, or raise what ended the feeding before."""
        for _ in range(times if after in ("sent", "acknowledged") else 0):
            waiting = asyncio.create_task(self.news[after].wait())
            done, _ = await asyncio.wait({waiting, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding in done:
                waiting.cancel()
                feeding.result()
            self.news[after].clear()
        await asyncio.sleep(delay_s)
        if feeding.done():
            feeding.result()

    def _kill(self, server: Server) -> None:
        if server.dead:
            return
        left = server.kill()
        self.counts["kills"] += 1
        if left:
            self.ledger.fault("leftover_children", f"{left} processes outlive kill {self.counts['kills']}")

    @asynccontextmanager
    async def _served(self, name: str) -> AsyncIterator[tuple[httpx.AsyncClient, Server]]:
        server = Server(self.folder, name, self.given.model)
        try:
            async with httpx.AsyncClient(base_url=await server.ready(), timeout=DEADLINE_S) as http:
                yield http, server
        except BaseException:  # nothing of ours may be left running
            server.kill()
            raise

    # what the client does

    async def _feed(self, http: httpx.AsyncClient) -> None:
        """Submit for ever; when all of a round is in, the documents change."""
        await _make_collections(http)
        while True:
            await self._submit_all(http)
            await self._settle(http)
            self.round += 1
            self.counts["rounds"] += 1
            self.waiting = set(self.documents.keys)

    async def _finish(self, http: httpx.AsyncClient) -> None:
        await _make_collections(http)
        await self._submit_all(http)
        await self._settle(http)

    async def _submit_all(self, http: httpx.AsyncClient) -> None:
        while self.unanswered or self.waiting:
            if not self.unanswered:
                self.unanswered.append(self._batch())
            await self._submit(http, self.unanswered[0])
            await asyncio.sleep(self.rng.uniform(0, 0.03))

    def _batch(self) -> Batch:
        first = self.rng.choice(sorted(self.waiting))
        alike = sorted(key for key in self.waiting if key[0] == first[0] and self._as_json(key) == self._as_json(first))
        keys = tuple(self.rng.sample(alike, min(len(alike), self.rng.choice((1, 2, 5, 12, 24)))))
        return Batch(
            first[0],
            keys,
            self.round,
            uuid.UUID(int=self.rng.getrandbits(128)).hex if self.rng.random() < 0.5 else None,
        )

    async def _submit(self, http: httpx.AsyncClient, batch: Batch) -> None:
        for key in batch.keys:
            self.ledger.sent[key] = batch.number
        asyncio.get_running_loop().call_soon(self.news["sent"].set)
        response = await http.post(f"/v1/collections/{batch.collection}/documents", **self._request(batch))
        if response.status_code in (429, 503):
            self.counts["refused"] += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
            return
        if response.status_code != 202:
            raise SystemExit(f"a submission was answered with {response.status_code}: {response.text}")
        # From here on the server has promised these documents.
        self.ledger.jobs[response.json()["processing_job_id"]] = batch
        self.counts["acknowledged"] += len(batch.keys)
        self.unanswered.remove(batch)
        self.waiting -= set(batch.keys)
        self.news["acknowledged"].set()

    def _request(self, batch: Batch) -> dict[str, Any]:
        metadata, headers = {"round": batch.number}, {}
        if batch.idempotency_key:
            headers["Idempotency-Key"] = batch.idempotency_key
        texts = [(key[1], self.documents.content(key, batch.number)) for key in batch.keys]
        if self._as_json(batch.keys[0]):
            documents = [{"id": name, "text": text, "metadata": metadata} for name, text in texts]
            return {"json": {"documents": documents}, "headers": headers}
        files = [("files", (name, text.encode(), "application/octet-stream")) for name, text in texts]
        return {"files": files, "data": {"metadata": json.dumps(metadata)}, "headers": headers}

    def _as_json(self, key: tuple[str, str]) -> bool:
        return self.documents.kind(key) == "text"

    async def _settle(self, http: httpx.AsyncClient) -> None:
        """Return once every acknowledged job has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while self.ledger.jobs:
            for job_id in list(self.ledger.jobs):
                response = await http.get(f"/v1/jobs/{job_id}")
                if response.status_code == 404:
                    self.ledger.fault("lost", f"acknowledged job {job_id} is unknown")
                    self.ledger.settle(job_id, {})
                elif response.json()["status"] in ENDED:
                    self.ledger.settle(job_id, {one["id"]: one["status"] for one in response.json()["documents"]})
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self.ledger.jobs)} jobs do not end: {sorted(self.ledger.jobs)[:3]}")
            await asyncio.sleep(POLL_S)

    # what is checked

    async def _look(self, http: httpx.AsyncClient) -> None:
        """Everything that must hold at any time, a moment after a restart above all."""
        self.ledger.compare(shown(self.folder / "data"))
        doctor = (await http.get("/v1/doctor")).json()
        if not doctor["healthy"]:
            self.ledger.fault("unhealthy", f"after {self.counts['kills']} kills: {doctor['problems']}")
        for job_id in self.ledger.jobs:
            if (await http.get(f"/v1/jobs/{job_id}")).status_code != 200:
                self.ledger.fault("lost", f"acknowledged job {job_id} is unknown")
        for key in self.rng.sample(sorted(self.ledger.seen), min(SAMPLE, len(self.ledger.seen))):
            await self._look_at(http, key)

    async def _look_at(self, http: httpx.AsyncClient, key: tuple[str, str]) -> None:
        response = await http.get(f"/v1/collections/{key[0]}/documents/{quote(key[1])}/text")
        if response.status_code != 200:
            self.ledger.fault("lost", f"{key} is answered with {response.status_code}")
            return
        base, text = self.documents.base, response.json()["text"]
        rounds = {base(key, number) for number in range(self.ledger.seen[key], self.ledger.sent[key] + 1)}
        if not any(self.documents.read(key, one).text == text for one in rounds):
            self.ledger.fault("half_visible", f"{key} is answered with a text of none of its rounds")

    async def _until_idle(self, http: httpx.AsyncClient) -> None:
        """Also the jobs of submissions whose acknowledgement never arrived."""
        deadline = time.monotonic() + DEADLINE_S
        while self._tasks("state IN ('queued', 'in_progress')"):
            if time.monotonic() > deadline:
                raise SystemExit("the queue does not become empty")
            await asyncio.sleep(POLL_S)
        await self._look(http)

    def _look_at_the_end(self) -> None:
        for one in leftovers(self.folder / "data"):
            self.ledger.fault("orphans", one)
        for _ in range(self._tasks("state IN ('failed', 'cancelled')")):
            self.ledger.fault("lost", "a document ended as failed or cancelled")

    def _tasks(self, condition: str) -> int:
        with closing(sqlite3.connect(f"file:{self.folder / 'data' / 'ragworks.db'}?mode=ro", uri=True)) as db:
            return int(db.execute(f"SELECT count(*) FROM tasks WHERE {condition}").fetchone()[0])

    async def _undisturbed(self) -> None:
        """The last round into a fresh folder, by the same path and without a kill."""
        other = Run(self.folder, 0, self.documents, self.given)
        other.round = self.round
        async with other._served("undisturbed") as (http, server):
            await other._finish(http)
            server.stop()

    def _report(self, seconds: float) -> dict[str, Any]:
        log = (self.folder / "data.log").read_text(encoding="utf-8", errors="replace")
        return {
            "machine": machine(),
            "commit": commit(),
            "seed": self.given.seed,
            "model": self.given.model,
            "documents": len(self.documents.keys),
            "chunks": sum(len(one.read.chunks) for one in shown(self.folder / "data").values()),
            "seconds": round(seconds, 1),
            "counts": dict(sorted(self.counts.items())),
            "faults": {kind: self.ledger.faults[kind] for kind in FAULTS},
            "logged_errors": log.count('"level": "error"') + log.count("Traceback (most recent call last)"),
            "notes": self.ledger.notes,
        }


async def _all_up(http: httpx.AsyncClient, url: str) -> bool:
    try:
        found = (await http.get(f"{url}/readyz?verbose")).json()
    except httpx.TransportError:
        return False
    return bool(found.get("ready")) and not found.get("services")


async def _make_collections(http: httpx.AsyncClient) -> None:
    for name in COLLECTIONS:
        made = await http.post("/v1/collections", json={"name": name})
        if made.status_code not in (201, 409):
            raise SystemExit(f"cannot make collection {name}: {made.text}")


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}"]
    lines += [f"{key:24}{found[key]:>12}" for key in ("seed", "documents", "chunks", "seconds", "logged_errors")]
    lines += [f"{key:24}{value:>12}" for part in ("counts", "faults") for key, value in found[part].items()]
    return "\n".join([*lines, *found["notes"]])


if __name__ == "__main__":
    main()
