"""A server whose every write, sync and rename below its data folder is seen, and can be broken (``disk.c``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

LIBRARY = Path(__file__).with_name("disk.c")
SETTINGS = {
    "RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing",
    "RAGWORKS_DOCUMENT_PROCESSOR__CHUNK_TOKENS": "32",
    "RAGWORKS_DOCUMENT_PROCESSOR__WORKERS": "1",
}


def compiled(folder: Path) -> Path:
    """The library, made by the C compiler of this machine."""
    library = folder / "disk.so"
    command = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", str(library), str(LIBRARY)]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError("this test needs a C compiler; on Debian and Ubuntu: apt install gcc libc6-dev") from error
    assert made.returncode == 0, made.stderr
    return library


@dataclass
class Disk:
    """A data folder under observation, and the server process on it."""

    library: Path
    folder: Path

    def __post_init__(self) -> None:
        self.kept.mkdir()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def kept(self) -> Path:
        return self.folder / "kept"

    def events(self) -> list[str]:
        """What was done, in order: "write NAME", "sync NAME", "rename NAME" (the new one), "answer STATUS"."""
        return (self.folder / "log").read_text(encoding="utf-8").splitlines()

    def break_down(self, operation: str, suffix: str, how: str, number: int = 1) -> None:
        """The ``number``-th such operation from now on goes wrong: torn (and the server dies), EIO or ENOSPC.

        Once in the life of a server.
        """
        draft = self.folder / "fault.new"
        draft.write_text(f"{operation} {suffix} {how} {number}", encoding="utf-8")
        draft.replace(self.folder / "fault")

    @asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
        """A server that is ready. It is killed when the context is left, if it still lives."""
        watching = {
            "LD_PRELOAD": str(self.library),
            "DISK_ROOT": str(self.data),
            "DISK_LOG": str(self.folder / "log"),
            "DISK_KEPT": str(self.kept),
            "DISK_FAULT": str(self.folder / "fault"),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ragworks", "serve", "--port", "0", "--data", str(self.data),
            env=os.environ | SETTINGS | watching, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout
        said: list[bytes] = []
        async for line in process.stdout:
            said.append(line)
            if b"orchestration_api" in line and b"service_started" in line:
                break
        draining = asyncio.create_task(process.stdout.read())
        try:
            assert process.returncode is None, b"".join(said).decode()
            url = json.loads((self.data / "server.json").read_text(encoding="utf-8"))["url"]
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                yield process, http
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await asyncio.gather(process.wait(), draining)

    def cut_power(self, target: Path) -> Path:
        """A copy of the data folder that holds what was synced, and nothing else."""
        self._restore("root", target)
        return target

    def _restore(self, key: str, target: Path) -> None:
        target.mkdir()
        listing = self.kept / key
        for line in listing.read_text(encoding="utf-8").splitlines() if listing.exists() else ():
            kind, key, name = line.split(" ", 2)
            if kind == "folder":
                self._restore(key, target / name)
            else:
                file = self.kept / key
                (target / name).write_bytes(file.read_bytes() if file.exists() else b"")
