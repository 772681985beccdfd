"""Listening on a port: bound before anything loads, announced in the data folder, drained before it closes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
import structlog
import uvicorn
from fastapi import FastAPI

from ragworks.api.application import create_api
from ragworks.api.service import NAME
from ragworks.errors import CannotStart, PortInUse

if TYPE_CHECKING:
    from ragworks.app import App

__all__ = ["ListeningServer", "create_api", "serve"]

log = structlog.get_logger("ragworks.api")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
DRAIN_S = 10.0  # Kubernetes kills after 30 s, and the services need as long again
SERVER_FILE = "server.json"


async def serve(
    app: App, host: str, port: int, *, on_listening: Callable[[str], None] | None = None, drain_s: float = DRAIN_S
) -> None:
    """Listen, start ``app``, and serve until SIGTERM or SIGINT; a second signal cancels what still runs.

    ``app`` must not have been entered. ``on_listening`` gets the URL once the port answers and the data folder is
    ours. Raises PortInUse or CannotStart before anything is opened, and whatever ``app`` raises when it cannot start.
    """
    async with ListeningServer(app, host, port, drain_s=drain_s) as server:
        with _stopped_by_signals(server):
            await app.start(wait=False)
            _note_death(app)
            try:
                with announced(Path(app.settings.server.data), server.url):
                    log.info("listening", url=server.url, pid=os.getpid())
                    if on_listening is not None:
                        on_listening(server.url)
                    await server.stop_requested.wait()
                    log.info("draining", deadline_s=drain_s)
                    await server.drain()
            finally:
                await app.stop()
    log.info("stopped")


class ListeningServer:
    """The API of ``app`` on a port. Entering returns once it answers; leaving returns once it is drained.

    ``app`` may still be starting. ``url`` is where it can be called from this machine; port 0 takes a free one.
    """

    def __init__(self, app: App, host: str, port: int, *, drain_s: float = DRAIN_S) -> None:
        self.url = ""
        self.stop_requested = asyncio.Event()
        self._app = app
        self._host = host
        self._port = port
        self._drain_s = drain_s
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ListeningServer:
        listener = bind(self._host, self._port)
        self.url = _url(listener)
        if not is_loopback(listener.getsockname()[0]):
            listener.close()
            raise CannotStart(
                f"--host {self._host} would open ragworks to the network, and there are no API keys yet: anyone who "
                "reaches the port could read and delete. Bind 127.0.0.1, and put a proxy before it that checks who "
                "asks (it must pass on Host: localhost)"
            )
        api = create_api(self._app, local_hosts=_local_names(self._host))
        self._stopping: asyncio.Event = api.state.stopping
        self._server = _Server(_config(api, self._drain_s))
        # Awaited by drain, which leaving calls.
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http-server")
        # Cancelled three lines down: it only says which came first, an answer or the end.
        answering = asyncio.create_task(self._server.answering.wait(), name="http-answering")
        await asyncio.wait({self._serving, answering}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        if self._serving.done():
            await self._serving
        # A listener that dies must end the process that waits for the signal to stop.
        self._serving.add_done_callback(lambda _: self.stop_requested.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Refuse new connections, let running requests finish until the deadline, cancel the rest."""
        if self._server is None or self._serving is None:
            return
        self._stopping.set()
        self._server.should_exit = True
        await asyncio.shield(self._serving)

    def force(self) -> None:
        """Do not wait for running requests any longer."""
        if self._server is not None:
            self._stopping.set()
            self._server.should_exit = self._server.force_exit = True
            for task in self._server.server_state.tasks:
                task.cancel("the server was told to stop twice")


class _Server(uvicorn.Server):
    """uvicorn, less its signal handlers, plus an event for the moment it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answering.set()


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises PortInUse, or CannotStart when the address is not ours to bind."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotStart(f"--host must be an address of this machine, found {host!r}: {error}") from error
    # A name with both kinds of address is bound by IPv4, which every client can reach.
    family, _, _, _, address = sorted(found, key=lambda entry: entry[0] is not socket.AF_INET)[0]
    # The protocol is named because asyncio switches Nagle off only then; with it a small answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(_taken(host, port)) from error
        raise CannotStart(f"cannot bind {host}:{port}: {error.strerror}; choose another --host or --port") from error
    listener.setblocking(False)
    return listener


def _note_death(app: App) -> None:
    """What a server left behind in a folder that is ours now is of one that could not tidy up."""
    try:
        pid = json.loads((Path(app.settings.server.data) / SERVER_FILE).read_text(encoding="utf-8"))["pid"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        pid = "unknown"
    reason = f"the server before this one (process {pid}) did not stop: it was killed, or the machine went down"
    record = app.journal.for_service(NAME)
    record("server_died", reason=reason)


@contextlib.contextmanager
def announced(data: Path, url: str) -> Iterator[None]:
    """``server.json`` in the data folder says where this process listens, until the context is left."""
    file = data / SERVER_FILE
    draft = data / f".{SERVER_FILE}.{os.getpid()}"
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    os.replace(draft, file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _stopped_by_signals(server: ListeningServer) -> Iterator[None]:
    loop, serving = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if not server.stop_requested.is_set():
            server.stop_requested.set()
            return
        server.force()
        if serving is not None:
            serving.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _config(api: FastAPI, drain_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )


def _taken(host: str, port: int) -> str:
    owner = _owner(port)
    return f"port {port} on {host} is taken by {owner}; stop that, or choose another with --port (0 takes a free one)"


def _owner(port: int) -> str:
    # Who listens is a courtesy: some systems tell only root.
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        address = "::1" if listener.family is socket.AF_INET6 else "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _local_names(host: str) -> set[str]:
    return {"localhost", "127.0.0.1", "::1", host.lower()}
