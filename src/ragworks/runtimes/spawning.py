"""Child processes, seen from the parent: spawned, watched and ended. ``spawned.py`` is what each of them runs first.

A child is born with one end of a socket pair, which is all that is spoken with it. Its standard input is its lifeline:
nothing is written there, and the child leaves when it ends. What it prints is heard and its last lines are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Mapping

import psutil

from ragworks.control_protocols import Usage

LAST_WORDS_BYTES = 4096
LINE_BYTES = 64 * 1024  # of one that is still to end; a traceback is one line
USAGE_S = 0.5  # psutil counts since it was last asked, and of a shorter time nothing can be said
LAST_WORDS_WAIT_S = 0.5  # a grandchild may hold the pipe that the child spoke into, for as long as it likes
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from ragworks.runtimes.spawned import settle; settle(*map(int, sys.argv[3:6])); "
    "from {module} import main; main(int(sys.argv[5]))"
)


class Child:
    """One child process, from its birth until nothing is left of it."""

    def __init__(self, transport: asyncio.SubprocessTransport, watch: _Watch, channel: socket.socket) -> None:
        self._transport, self._watch = transport, watch
        self.channel = channel
        """Our end. Whoever takes it closes it."""
        self.pid: int = transport.get_pid()
        self._seen: psutil.Process | None = None
        self._asked_at: float | None = None
        self._busy: float | None = None
        with contextlib.suppress(psutil.Error):
            self._seen = psutil.Process(self.pid)

    @classmethod
    async def spawn(
        cls,
        module: str,
        name: str,
        *,
        niceness: int = 0,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Child:
        """A child that runs ``main`` of ``module`` with its end of the channel; ``name`` is what process lists show.

        ``on_line`` hears each line that it prints. Cancelling leaves nothing behind.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                transport, watch = await asyncio.get_running_loop().subprocess_exec(
                    lambda: _Watch(on_line), sys.executable, "-c", _BOOT.format(module=module), name,
                    json.dumps(sys.path), str(os.getpid()), str(niceness), str(theirs.fileno()),
                    stdin=PIPE, stdout=PIPE, stderr=STDOUT, pass_fds=(theirs.fileno(),),
                    env=os.environ | (environment or {}),
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        return cls(transport, watch, ours)

    def alive(self) -> bool:
        return self._transport.get_returncode() is None

    def usage(self) -> Usage:
        """Its own figures, unknown once it is gone. Those of the CPU are of the last ``USAGE_S`` or longer."""
        try:
            if self._seen is None or not self.alive():
                return Usage()
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at >= USAGE_S:
                # The first answer of psutil is always 0.
                busy = self._seen.cpu_percent()
                self._busy, self._asked_at = None if self._asked_at is None else busy, now
            return Usage(self._busy, self._seen.memory_info().rss)
        except psutil.Error:
            return Usage()

    def memory_bytes(self) -> int:
        """Resident memory, 0 once it is gone."""
        try:
            return int(self._seen.memory_info().rss) if self._seen else 0
        except psutil.Error:
            return 0

    def cpu_seconds(self) -> float:
        """Processor time that it took so far, 0 once it is gone."""
        try:
            return sum(self._seen.cpu_times()[:2]) if self._seen else 0.0
        except psutil.Error:
            return 0.0

    async def gone(self) -> tuple[str, str]:
        """Return when the process is gone: how it went, and the last line that it said."""
        await self._watch.exited.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_WAIT_S):
                await self._watch.silent.wait()
        code = self._transport.get_returncode()
        return _how_it_went(0 if code is None else code), self._watch.last_line()

    def kill(self) -> None:
        """Harmless when it is gone already."""
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()

    async def end(self) -> None:
        """Kill it and return when it is gone and nothing of it is held."""
        self.kill()
        await self._watch.exited.wait()
        self._transport.close()


def _how_it_went(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"


class _Watch(asyncio.SubprocessProtocol):
    """Hears what the child prints, and that it is gone: of that asyncio's own streams tell only when nobody holds the
    child's pipes any more, which a grandchild may do for ever."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._said = b""
        self._line = b""
        self.exited, self.silent = asyncio.Event(), asyncio.Event()

    def last_line(self) -> str:
        return self._said.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1].strip()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._said = (self._said + data)[-LAST_WORDS_BYTES:]
        if self._on_line is None:
            return
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LINE_BYTES:]
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                self._on_line(text)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.silent.set()

    def process_exited(self) -> None:
        self.exited.set()
