"""A server process as a benchmark sees it: started, watched, and killed with or without its workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import httpx
import psutil

MARK = "BENCH_OF_RAGWORKS"  # in the environment of the server, and so of every process that it starts
DEADLINE_S = 120.0
ORPHAN_S = 5.0  # in which a worker must have noticed that its server is gone
POLL_S = 0.01
VICTIMS = ("server", "worker", "workers", "server and workers")


class Stuck(Exception):
    """The server does not do what it must within two minutes."""


class Server:
    """One life of a server process on the data folder ``name`` in ``folder``, with what ``environment`` sets.

    It runs in ``where``, whose ``ragworks.toml`` it reads; by default in ``folder``, where there is none.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        environment: Mapping[str, str],
        *arguments: str,
        where: Path | None = None,
    ) -> None:
        self.data, self._log = folder / name, folder / f"{name}.log"
        self._token = uuid.uuid4().hex
        command = [sys.executable, "-m", "ragworks", "serve", "--port", "0", "--data", str(self.data), *arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**environment, MARK: self._token}, cwd=where or folder, stdout=log, stderr=log
            )

    async def ready(self) -> str:
        """The URL, once a search and a submission would be answered. Raises Stuck."""
        deadline = time.monotonic() + DEADLINE_S
        async with httpx.AsyncClient(timeout=30) as http:
            while time.monotonic() < deadline and not self.dead:
                if (url := self._url()) and await _all_up(http, url):
                    return url
                await asyncio.sleep(POLL_S)
        said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise Stuck(f"the server did not come up (exit code {self._process.poll()}):\n{said}")

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    def kill(self, victim: str, rng: Random) -> bool:
        """SIGKILL to a victim of VICTIMS; False if that is a worker and there is none."""
        workers = self._workers()
        struck: list[psutil.Process | subprocess.Popen[bytes]] = []
        if victim == "worker":
            struck += workers and [rng.choice(workers)]
        elif victim != "server":
            struck += workers
        if victim.startswith("server"):
            struck.append(self._process)
        rng.shuffle(struck)
        for one in struck:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if victim.startswith("server"):
            self._process.wait()
        return bool(struck)

    def outliving(self) -> int:
        """How many processes of a killed server are still there when they should be gone."""
        deadline = time.monotonic() + ORPHAN_S
        while (left := sum(1 for _ in self._relatives())) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return left

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE_S)

    def _url(self) -> str | None:
        try:
            found = json.loads((self.data / "server.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return str(found["url"]) if found["pid"] == self._process.pid else None

    def _workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children()
        return []

    def _relatives(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._token and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


async def _all_up(http: httpx.AsyncClient, url: str) -> bool:
    try:
        found = (await http.get(f"{url}/readyz?verbose")).json()
    except httpx.TransportError:
        return False
    return bool(found.get("ready")) and not found.get("services")
