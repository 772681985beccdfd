"""One client for every command: a running server over HTTP, or the data folder opened in this process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from ragworks.errors import InvalidInput, ServerProblem, ServerUnreachable
from ragworks.settings import Settings

if TYPE_CHECKING:
    from ragworks.types import Priority  # late: it brings numpy, and a command that talks to a server needs none

Json = dict[str, Any]
OnWait = Callable[[float, str], None]

FINAL = frozenset({"completed", "failed", "cancelled"})
PATIENCE_S = 60.0
READ_TIMEOUT_S = 600.0  # a doctor of a large folder takes minutes
EVENT_SILENCE_S = 30.0  # a stream that says nothing for so long is opened anew; it begins with the state now
READY_POLL_S = 0.25
RECONNECTS = 5  # in a row, without anything heard between them


class Client:
    """The HTTP API as methods that return its JSON.

    An answer of 429 or 503 that names a Retry-After is waited out, ``patience_s`` seconds in all; ``on_wait`` hears
    of each wait (seconds, the server's reason). Raises ServerProblem and ServerUnreachable.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        where: str,
        *,
        patience_s: float = PATIENCE_S,
        on_wait: OnWait = lambda seconds, reason: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.where = where
        self.on_wait = on_wait
        self._http = http
        self._patience_s = patience_s
        self.sleep = sleep

    async def collections(self) -> list[Json]:
        return await self._listed("/v1/collections")

    async def ensure_collection(self, name: str) -> None:
        """Create the collection unless it is there."""
        try:
            await self._json("POST", "/v1/collections", json={"name": name})
        except ServerProblem as problem:
            if problem.code != "collection_exists":
                raise

    async def drop_collection(self, name: str) -> None:
        await self._send("DELETE", _at(name))

    async def documents(self, collection: str, origin: str | None = None) -> list[Json]:
        """All documents, or those that were taken from the folder ``origin``."""
        return await self._listed(f"{_at(collection)}/documents", origin=origin)

    async def document(self, collection: str, document_id: str) -> Json:
        return await self._json("GET", f"{_at(collection)}/documents/{_segment(document_id)}")

    async def delete_document(self, collection: str, document_id: str) -> None:
        await self._send("DELETE", f"{_at(collection)}/documents/{_segment(document_id)}")

    async def submit_files(
        self,
        collection: str,
        files: Sequence[tuple[str, IO[bytes]]],
        metadata: Mapping[str, Any],
        key: str,
        *,
        origin: str | None = None,
        priority: Priority = "normal",
    ) -> Json:
        """The receipt of accepted files, given as (name, open file). Repeating ``key`` repeats nothing else.

        A refusal for now (429) is raised, not waited out.
        """
        fields = {"metadata": json.dumps(metadata) if metadata else None, "origin": origin}
        fields["priority"] = priority if priority != "normal" else None
        return await self._submit(
            collection,
            key,
            files=[("files", (name, file, "application/octet-stream")) for name, file in files],
            data={name: value for name, value in fields.items() if value is not None},
            # The same key promises the same body, so the boundary must not be drawn anew.
            headers={"Content-Type": f"multipart/form-data; boundary={key}"},
        )

    async def submit_documents(self, collection: str, documents: Sequence[Json], key: str) -> Json:
        """The receipt of accepted texts, each with ``id``, ``text`` and, if any, ``title`` and ``metadata``.

        A refusal for now (429) is raised, not waited out.
        """
        return await self._submit(collection, key, json={"documents": list(documents)})

    async def jobs(self, limit: int = 20) -> list[Json]:
        """The newest jobs, without their documents."""
        page = await self._json("GET", "/v1/jobs", params={"limit": limit})
        return list(page["data"])

    async def job(self, job_id: str) -> Json:
        return await self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}")

    async def cancel(self, job_id: str) -> Json:
        return await self._json("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    async def retry(self, job_id: str) -> Json:
        return await self._json("POST", f"/v1/jobs/{quote(job_id, safe='')}/retry")

    async def dead_letters(self) -> list[Json]:
        """The documents whose last attempt failed, over all jobs."""
        return await self._listed("/v1/dead-letters")

    async def retry_dead(self) -> Json:
        """Queue every dead letter again that there is room for: how many were ``queued``, how many are ``left``."""
        return await self._json("POST", "/v1/dead-letters/retry")

    async def follow(self, job_id: str) -> AsyncIterator[Json]:
        """The job now, then whenever it changed, up to its final state; survives a connection that breaks off."""
        silent = 0
        while silent <= RECONNECTS:
            try:
                async for _, job in self._events("GET", f"/v1/jobs/{quote(job_id, safe='')}/events", EVENT_SILENCE_S):
                    silent = 0
                    yield job
                    if job["status"] in FINAL:
                        return
            except ServerUnreachable as error:
                if isinstance(error.__cause__, httpx.ReadTimeout):
                    continue  # silence is what a long document sounds like
                if silent == RECONNECTS:
                    raise
            silent += 1
            await self.sleep(silent)
        raise ServerUnreachable(f"the server at {self.where} keeps closing the events of job {job_id}")

    async def search(self, collection: str, body: Json) -> Json:
        return await self._json("POST", f"{_at(collection)}/search", json=body)

    async def ask(self, collection: str, body: Json) -> Json:
        return await self._json("POST", f"{_at(collection)}/ask", json=body)

    async def ask_streaming(self, collection: str, body: Json) -> AsyncIterator[str | Json]:
        """Pieces of the answer's text, then the whole answer."""
        path = f"{_at(collection)}/ask"
        async for event, data in self._events("POST", path, READ_TIMEOUT_S, json={**body, "stream": True}):
            if event == "error":
                raise _problem(data, int(data.get("status", 500)), None)
            yield data["text"] if event == "delta" else data

    async def services(self) -> list[Json]:
        return list((await self._json("GET", "/v1/services"))["data"])

    async def scale(self, service: str, instances: int | None) -> Json:
        """The service as it is once new replicas were tried, or those that were too many have drained.

        Without ``instances`` it is scaled by its load from now on."""
        wanted = {"mode": "auto"} if instances is None else {"instances": instances}
        return await self._json("POST", f"/v1/services/{_segment(service)}/scale", json=wanted)

    async def events(self, *, service: str | None, since: float, limit: int) -> list[Json]:
        """The newest events, oldest first."""
        params = {"service": service, "since": since, "limit": limit}
        given = {name: value for name, value in params.items() if value is not None}
        return list((await self._json("GET", "/v1/events", params=given))["data"])[::-1]

    async def insights(self, since: float) -> Json:
        """What the questions since then come to."""
        return await self._json("GET", "/v1/insights", params={"since": since})

    async def feedback(self, collection: str, body: Json) -> Json:
        return await self._json("POST", f"{_at(collection)}/feedback", json=body)

    async def ready(self) -> tuple[bool, Json]:
        """Whether search can be answered, and which services are not up, with the reason."""
        response = await self._once("GET", "/readyz", params={"verbose": ""})
        return response.status_code == 200, _object(response).get("services") or {}

    async def until_ready(self) -> None:
        """Return once the server can answer a search."""
        while not (await self.ready())[0]:
            await self.sleep(READY_POLL_S)

    async def doctor(self) -> Json:
        return await self._json("GET", "/v1/doctor")

    async def cache(self) -> Json:
        return await self._json("GET", "/v1/cache")

    async def clear_cache(self) -> Json:
        return await self._json("DELETE", "/v1/cache")

    async def _submit(
        self, collection: str, key: str, headers: Mapping[str, str] | None = None, **content: Any
    ) -> Json:
        path, tries = f"{_at(collection)}/documents", 0
        while True:
            try:
                # Who feeds knows better than a clock when there is room again: refusals are the caller's.
                return await self._json(
                    "POST", path, patience_s=0, headers={"Idempotency-Key": key, **(headers or {})}, **content
                )
            except ServerUnreachable:
                tries += 1
                if tries > RECONNECTS:
                    raise
                await self.sleep(tries)

    async def _listed(self, path: str, **given: str | None) -> list[Json]:
        found: list[Json] = []
        params: dict[str, Any] = {"limit": 1000, **{name: one for name, one in given.items() if one is not None}}
        while True:
            page = await self._json("GET", path, params=params)
            found += page["data"]
            if not page["has_more"]:
                return found
            params["after"] = page["last_id"]

    async def _json(self, method: str, path: str, **content: Any) -> Json:
        response = await self._send(method, path, **content)
        if not (body := _object(response)):
            raise ServerProblem("not_ragworks", f"{self.where} does not answer like ragworks", response.status_code)
        return body

    async def _send(self, method: str, path: str, *, patience_s: float | None = None, **content: Any) -> httpx.Response:
        left = self._patience_s if patience_s is None else patience_s
        while True:
            response = await self._once(method, path, **content)
            if response.is_success:
                return response
            left -= await self._wait_out(_problem_of(response), left)

    async def _wait_out(self, problem: ServerProblem, left_s: float) -> float:
        pause = problem.retry_after_s
        if not problem.transient or pause is None or pause > left_s:
            raise problem
        self.on_wait(pause, str(problem))
        await self.sleep(pause)
        return pause

    async def _once(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def _events(
        self, method: str, path: str, silence_s: float, **content: Any
    ) -> AsyncIterator[tuple[str, Json]]:
        """(event, data) of a server-sent event stream; a refusal before the stream is waited out like any other."""
        left, timeout = self._patience_s, _timeout(silence_s)
        while True:
            try:
                async with self._http.stream(method, path, timeout=timeout, **content) as response:
                    if response.is_success:
                        async for event in _parsed(response.aiter_lines()):
                            yield event
                        return
                    await response.aread()
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
            left -= await self._wait_out(_problem_of(response), left)

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return ServerUnreachable(f"the server at {self.where} {what} ({type(error).__name__}: {error}); is it running?")


@asynccontextmanager
async def connect(
    data: str, url: str | None, settings: Settings, *, create: bool = False, patience_s: float = PATIENCE_S
) -> AsyncIterator[Client]:
    """A client of the server at ``url``, else of the live server of the folder ``data``, else of the folder itself.

    The folder is opened in this process, with the services that ``settings`` name, and closed again afterwards. Raises
    InvalidInput if the folder is not there and ``create`` is false, and whatever opening it raises.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise InvalidInput(f"--url must begin with http:// or https://, found {url!r}")
    async with AsyncExitStack() as stack:
        address = url or await live_server(data)
        transport = None if address else await stack.enter_async_context(_opened(data, settings, create))
        # A proxy of the environment has no business between a command and the server of a folder on this machine.
        http = httpx.AsyncClient(
            base_url=address or "http://127.0.0.1",
            transport=transport,
            timeout=_timeout(READ_TIMEOUT_S),
            trust_env=url is not None,
        )
        await stack.enter_async_context(http)
        yield Client(http, address or data, patience_s=patience_s)


async def kept_events(settings: Settings, *, service: str | None, since: float, limit: int) -> list[Json]:
    """As Client.events, of a data folder that no server has open: read where it lies, nothing is opened or started.

    Raises InvalidInput if the folder is not there.
    """
    _require_folder(settings.server.data)
    from ragworks.api.schemas import event
    from ragworks.app import kept_events

    found = await kept_events(settings, service=service, since=since, limit=limit)
    return [event(one).model_dump(mode="json") for one in found]


async def live_server(data: str) -> str | None:
    """The URL of the server that runs on the data folder; None if there is none, whatever file it left behind."""
    try:
        found = json.loads((Path(data) / "server.json").read_text(encoding="utf-8"))
        address, pid = str(found["url"]), int(found["pid"])
        os.kill(pid, 0)
    except PermissionError:
        pass  # alive, of another user
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        async with httpx.AsyncClient(base_url=address, timeout=5.0, trust_env=False) as http:
            return address if (await http.get("/livez")).status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


@asynccontextmanager
async def _opened(data: str, settings: Settings, create: bool) -> AsyncIterator[httpx.AsyncBaseTransport]:
    if not create:
        _require_folder(data)
    from ragworks.api.server import create_api
    from ragworks.app import build
    from ragworks.local_transport import LocalTransport

    async with build(settings) as app:
        yield LocalTransport(create_api(app))


def _require_folder(data: str) -> None:
    if not Path(data).is_dir():
        raise InvalidInput(
            f"there is no data folder {data}; make one with `ragworks ingest PATH`, or name it with --data"
        )


async def _parsed(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Json]]:
    event, data = "message", ""
    async for line in lines:
        if line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
        elif not line and data:
            yield event, json.loads(data)
            event, data = "message", ""


def _problem_of(response: httpx.Response) -> ServerProblem:
    pause = response.headers.get("Retry-After", "")
    return _problem(_object(response), response.status_code, float(pause) if pause.isdigit() else None)


def _problem(body: Json, status: int, retry_after_s: float | None) -> ServerProblem:
    detail = body.get("detail") or body.get("title") or f"the server answered {status}"
    return ServerProblem(str(body.get("code", "http_error")), str(detail), status, retry_after_s)


def _object(response: httpx.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _timeout(read_s: float) -> httpx.Timeout:
    return httpx.Timeout(connect=5.0, read=read_s, write=120.0, pool=None)


def _at(collection: str) -> str:
    return f"/v1/collections/{_segment(collection)}"


def _segment(name: str) -> str:
    """``name`` as one segment of a path: a bare ``..`` would be resolved away, and the request meet what lies above."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")
