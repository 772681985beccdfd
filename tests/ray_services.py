"""What the test with Ray runs in replicas, which import it by name: services of ours, unchanged, whose model or
generator misbehaves in the one replica that starts first."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ray.serve._private import replica as serve_replica

from ragworks.clock import SystemClock
from ragworks.control.replicas import ReplicaSet
from ragworks.errors import ModelMismatch
from ragworks.models.hashing import HashingEmbedder
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.services.generation_service import GenerationService
from ragworks.settings import EmbeddingsSettings
from ragworks.testing import ScriptedGenerator
from ragworks.types import Health, ServiceHealth, TextKind, Vectors

REFUSED = ("papers", "bge-small", "hashing")
"""What ModelMismatch is made of; ``args`` of the error is the message that it makes of them."""


class LoggingModel(HashingEmbedder):
    """Takes ``delay_s`` a batch, and writes down who embedded how many texts."""

    def __init__(self, log: Path, delay_s: float) -> None:
        self._log, self._delay_s = log, delay_s

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        time.sleep(self._delay_s)
        note(self._log, f"{os.getpid()} {len(texts)}")
        return super().embed(texts, kind)


class SlowInOne:
    """Makes the engine's model: a slow one in the first replica, fast ones in the others."""

    def __init__(self, folder: Path, slow_s: float, fast_s: float) -> None:
        self._folder, self._slow_s, self._fast_s = folder, slow_s, fast_s

    def __call__(self, settings: EmbeddingsSettings) -> LoggingModel:
        return LoggingModel(self._folder / "embedded", self._slow_s if is_first(self._folder) else self._fast_s)


def embedding_engine(folder: Path, slow_s: float, fast_s: float) -> EmbeddingEngine:
    keep_to_loopback()
    return EmbeddingEngine(EmbeddingsSettings(model_name="hashing"), SlowInOne(folder, slow_s, fast_s))


def generation_service(folder: Path) -> GenerationService:
    """Fails at once, every time, in the first replica."""
    keep_to_loopback()
    broken = ScriptedGenerator(pieces=(), error=RuntimeError("the model is broken")) if is_first(folder) else None
    return GenerationService(broken or ScriptedGenerator(pieces=("It is ", "so."), cites=()), SystemClock())


class Watched(ReplicaSet):
    """The table of a router, which those who share its process may look at."""

    made: ClassVar[list[Watched]] = []

    def __init__(self, balance: BalanceSettings, ejecting: EjectSettings, rng: Random) -> None:
        super().__init__(balance, ejecting, rng)
        self.made.append(self)


class Patient:
    """A service of which one hears how it and its calls began and ended."""

    def __init__(self, log: Path) -> None:
        keep_to_loopback()
        self._log = log

    async def initialize(self) -> None:
        note(self._log, "initialized")

    async def shutdown(self) -> None:
        note(self._log, "shut down")

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth("patient", Health.HEALTHY)

    def stats(self) -> Mapping[str, Any]:
        return {}

    async def pid(self) -> int:
        return os.getpid()

    async def wait(self, name: str) -> None:
        note(self._log, f"{name} waits in {os.getpid()}")
        try:
            await asyncio.Event().wait()
        finally:
            note(self._log, f"{name} ended")

    async def count(self) -> AsyncIterator[int]:
        try:
            for number in range(1_000_000):
                yield number
        finally:
            note(self._log, "count ended")

    async def refuse(self) -> None:
        raise ModelMismatch(*REFUSED)


def is_first(folder: Path) -> bool:
    """Whether no other process has asked before; writes down which one it was."""
    try:
        taken = os.open(folder / "first", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(taken, str(os.getpid()).encode())
    os.close(taken)
    return True


def note(log: Path, line: str) -> None:
    """Append a line, whole, whoever else writes there."""
    with open(log, "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def keep_to_loopback() -> None:
    """Serve opens a port of every replica to all networks (docs/guides/ray.md); a test does not."""
    add = serve_replica.add_port_to_grpc_server
    serve_replica.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))
