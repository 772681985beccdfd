"""Services that the tests run as replicas. In a module of its own, because a child process imports it by name."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ragworks import tracing
from ragworks.errors import CannotStart, QueueFull
from ragworks.testing import until
from ragworks.types import Health, ServiceHealth


class Echo:
    """Says again what it is told, and counts what became of its calls. ``note`` is written to when it shuts down."""

    def __init__(self, note: str = "") -> None:
        self._note = note
        self._seen = dict.fromkeys(("begun", "cancelled", "produced", "closed"), 0)
        self._held: list[Any] = []

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None:
        if self._note:
            write(self._note, "shut down")

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth("echo", Health.HEALTHY, 0.0, 0, 0.0, {})

    def stats(self) -> Mapping[str, Any]:
        return {"note": self._note}

    async def seen(self) -> dict[str, int]:
        return dict(self._seen)

    async def echo(self, value: Any, *, turns: int = 0) -> Any:
        """The value, after so many turns of the event loop."""
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    async def hang(self) -> None:
        self._seen["begun"] += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._seen["cancelled"] += 1
            raise

    async def told(self, path: str) -> str:
        """Answers when there is a file at ``path``."""
        self._seen["begun"] += 1
        await until(Path(path).exists)
        return "told"

    async def say(self, what: str) -> None:
        """Write it to the log, within a span of its own."""
        with tracing.span("say"):
            structlog.get_logger().warning("said", what=what)

    async def refuse(self) -> None:
        raise QueueFull("no room", retry_after_s=3.5)

    async def fail(self) -> None:
        raise ValueError("the third byte is odd")

    async def give_up(self) -> None:
        raise TimeoutError("the disk is slow")

    async def unpicklable(self) -> Any:
        return lambda: None

    async def count(self, items: int, fail_at: int = -1, hang_at: int = -1) -> AsyncIterator[int]:
        try:
            for item in range(items):
                if item == fail_at:
                    raise ValueError(f"item {item} is odd")
                if item == hang_at:
                    await self.hang()
                self._seen["produced"] += 1
                yield item
        finally:
            self._seen["closed"] += 1

    async def arrays(self, items: int) -> AsyncIterator[Any]:
        for item in range(items):
            yield np.full(100_000, item, np.float32)

    async def leak(self, size: int) -> None:
        self._held.append(b"x" * size)

    async def exit_with(self, code: int) -> None:
        os.write(2, b"the model gave up\n")
        os._exit(code)

    async def survive(self, number: int) -> str:
        os.kill(os.getpid(), number)
        return "alive"

    async def noise(self) -> str:
        """Print by every road, and read from standard input."""
        sys.stdout.write("noise " * 10_000)
        os.write(1, b"more noise\n")
        ctypes.CDLL(None).puts(b"noise from C")
        return f"clear, read {os.read(0, 10)!r}"

    async def leave_a_grandchild(self) -> int:
        """Its process id; it holds every pipe that it inherits."""
        return grandchild()

    async def close_everything(self) -> None:
        os.closerange(3, 256)

    async def block(self, lock: str) -> None:
        """Hold a file lock and the interpreter for as long as this process lives."""
        fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
        write(f"{lock}.pid", str(os.getpid()))
        ctypes.PyDLL(None).pause()


class Broken(Echo):
    async def initialize(self) -> None:
        raise CannotStart("the model is not there")


class Odd(Echo):
    async def initialize(self) -> None:
        raise ValueError("the third byte is odd")


class Dying(Echo):
    async def initialize(self) -> None:
        await self.exit_with(3)


class Stuck(Echo):
    """Never initialized; its process id is in ``note``."""

    async def initialize(self) -> None:
        write(self._note, str(os.getpid()))
        await asyncio.Event().wait()


class Clinging(Echo):
    async def shutdown(self) -> None:
        await asyncio.Event().wait()


class Sore(Echo):
    async def shutdown(self) -> None:
        raise ValueError("the disk is gone")


def write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def grandchild() -> int:
    return subprocess.Popen(["sleep", "600"]).pid
