"""What the tests ask worker processes to do. In a module of its own, because a worker imports it by name."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragworks.errors import QueueFull

Report = Callable[[Any], None]


def pid(_: Report) -> int:
    return os.getpid()


def echo(value: Any, report: Report) -> Any:
    report("got it")
    return value


def say(what: str, _: Report) -> None:
    print(what, flush=True)  # noqa: T201


def unpicklable(_: Report) -> Any:
    return lambda: None


def exit_with(code: int, _: Report) -> None:
    os.write(2, b"the parser gave up\n")
    os._exit(code)


def kill_self(_: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def survive(number: int, _: Report) -> str:
    os.kill(os.getpid(), number)
    return "alive"


def fill_memory(size: int, report: Report) -> None:
    held = b"x" * size
    report(len(held))
    signal.pause()


def read_pipe(path: str, _: Report) -> str:
    """What somebody writes to the pipe, once they do."""
    return Path(path).read_text(encoding="utf-8")


def noise(_: Report) -> str:
    """Print by every road to standard output, and read from standard input."""
    sys.stdout.write("noise " * 10_000)
    os.write(1, b"more noise\n")
    ctypes.CDLL(None).puts(b"noise from C")
    return f"clear, read {os.read(0, 10)!r}"


def refuse(_: Report) -> None:
    raise QueueFull("no room", retry_after_s=3.5)


def fail(_: Report) -> None:
    raise ValueError("the third byte is odd")


def work(_: Report) -> None:
    while True:
        pass


def hold(lock: str, report: Report) -> None:
    """Hold a file lock for as long as this process lives, and never return."""
    _lock(lock)
    report(os.getpid())
    signal.pause()


def hold_and_starve(lock: str, report: Report) -> None:
    """Like ``hold``, without ever letting another thread of this process run, as a parser in C may do."""
    _lock(lock)
    report(os.getpid())
    ctypes.PyDLL(None).pause()


def _lock(path: str) -> None:
    # Never closed: the lock ends with the process.
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)


BLOCKING = (hold, hold_and_starve) if sys.platform == "linux" else (hold,)
