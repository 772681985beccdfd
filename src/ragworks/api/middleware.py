"""What surrounds every request, as plain ASGI: identity, measurement, the log line, and what is refused unread."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragworks import tracing
from ragworks.api.problems import describe, respond
from ragworks.control.metrics import Metrics
from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import NotReady, RagworksError, SubmissionTooLarge
from ragworks.tracing import OFF, Off, Span

log = structlog.get_logger("ragworks.api")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNMATCHED = "unmatched"
CUT_SHORT = NotReady("the server stopped before it could answer; ask again once it is back", 1.0)
# Scrapers and probes come every few seconds and say nothing new.
QUIET_ROUTES = ("/livez", "/readyz", "/metrics")


class Observed:
    """Gives each request an id, counts and times it by route template, and logs one ``request`` event.

    An exception that no handler took ends here: logged once with its traceback, answered as ``internal_error``.
    """

    def __init__(self, inner: ASGIApp, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        scope["request_id"] = _request_id(Headers(scope=scope))
        answered = _Answered(send, scope["request_id"])
        began = time.perf_counter()
        self._metrics.request_started()
        with structlog.contextvars.bound_contextvars(request_id=scope["request_id"]), _traced(scope) as span:
            try:
                await self._guarded(scope, receive, answered)
            finally:
                self._record(scope, answered.status, time.perf_counter() - began)
                _note(span, scope, answered.status)

    async def _guarded(self, scope: Scope, receive: Receive, answered: _Answered) -> None:
        try:
            await self._inner(scope, receive, answered)
        except ClientDisconnect:
            log.debug("client_left", route=_route(scope))
        except asyncio.CancelledError:
            if not _stopping(scope):
                raise
            # The server waits no longer: what the client gets is an answer, and what the operator gets is no traceback.
            if answered.status is None:
                await respond(CUT_SHORT, scope["path"], scope["request_id"])(scope, receive, answered)
        except Exception as error:
            # The last place that can still answer: whatever a route did not expect must not kill the connection.
            if not isinstance(error, HTTPException | RagworksError):
                log.exception("request_failed", method=scope["method"], route=_route(scope))
            self._metrics.error(describe(error).body["code"])
            if answered.status is None:
                await respond(error, scope["path"], scope["request_id"])(scope, receive, answered)

    def _record(self, scope: Scope, status: int | None, seconds: float) -> None:
        route = _route(scope)
        # 499 is what proxies write for a client that left before the first byte.
        status = status or 499
        self._metrics.request_finished(route, scope["method"], status, seconds)
        level = log.debug if route in QUIET_ROUTES and status < 400 else log.info
        level(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 6),
            request_id=scope["request_id"],
        )


class _Answered:
    """A ``send`` that remembers the status and adds the request id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self._request_id
        await self._send(message)


class BodyLimit:
    """Refuses bodies that are too long with 413: unread when they say so, otherwise at the byte too many."""

    def __init__(self, inner: ASGIApp, json_bytes: int, upload_bytes: int, record: Record = unrecorded) -> None:
        self._inner = inner
        self._record = record
        self._json_bytes = json_bytes
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        uploads = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self._upload_bytes if uploads else self._json_bytes
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise self._too_large(limit, length, uploads)
        await self._inner(scope, _Limited(receive, limit, lambda: self._too_large(limit, "", uploads)), send)

    def _too_large(self, limit: int, length: str, uploads: bool) -> SubmissionTooLarge:
        refusal = _too_large(limit, f"{length} bytes" if length else "more", uploads)
        seen = {"max_body_bytes": limit, "body_bytes": int(length) if length else None}
        self._record("refused", reason=str(refusal), inputs=seen)
        return refusal


class _Limited:
    """A ``receive`` that raises ``refusal()`` past ``limit`` bytes."""

    def __init__(self, receive: Receive, limit: int, refusal: Callable[[], SubmissionTooLarge]) -> None:
        self._receive = receive
        self._limit = limit
        self._refusal = refusal
        self._seen = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise self._refusal()
        return message


def _too_large(limit: int, found: str, uploads: bool) -> SubmissionTooLarge:
    advice = (
        "send fewer or smaller files"
        if uploads
        else "send fewer documents at a time, or send them as files (multipart)"
    )
    return SubmissionTooLarge(f"expected a body of at most {limit} bytes, found {found}; {advice}")


class HeadAsGet:
    """Answers HEAD wherever GET is answered, as probes and ``curl -I`` expect: the same headers, no body."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._inner(scope, receive, send)
            return

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        # The route that is found is written into this very scope, for whoever measures.
        scope["method"] = "GET"
        try:
            await self._inner(scope, receive, headers_only)
        finally:
            scope["method"] = "HEAD"


class LocalOnly:
    """Guards a server on a loopback address against web pages: they can make a browser send requests to it.

    A rebound name arrives with a foreign ``Host``, a foreign page with a foreign ``Origin``; both get 403.
    """

    def __init__(self, inner: ASGIApp, hosts: Collection[str] | None) -> None:
        self._inner = inner
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts is not None:
            headers = Headers(scope=scope)
            self._check("Host", f"//{headers.get('host', '')}")
            if "origin" in headers:
                self._check("Origin", headers["origin"])
        await self._inner(scope, receive, send)

    def _check(self, name: str, address: str) -> None:
        try:
            found: Any = urlsplit(address).hostname
        except ValueError:
            found = None
        if found not in (self._hosts or ()):
            allowed = ", ".join(sorted(self._hosts or ()))
            raise HTTPException(
                403,
                f"this server listens on this machine only and expects the header {name} to name one of {allowed}, "
                f"found {found!r}; call it by http://127.0.0.1, or bind another address with --host",
            )


def _traced(scope: Scope) -> Span | Off:
    """The span of a request, which may go on with a trace of its caller. Probes make none."""
    if not tracing.is_on() or scope["path"] in QUIET_ROUTES:
        return OFF
    attributes: tracing.Attributes = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "ragworks.request_id": scope["request_id"],
    }
    parent = tracing.parsed(Headers(scope=scope).get("traceparent"))
    return tracing.entry(scope["method"], attributes, "server", parent)


def _note(span: Span | Off, scope: Scope, status: int | None) -> None:
    if isinstance(span, Off):
        return
    if (route := _route(scope)) != UNMATCHED:
        span.name = f"{scope['method']} {route}"
        span.set("http.route", route)
    if status is not None:
        span.set("http.response.status_code", status)
    if status is None or status >= 500:
        span.fail(str(status or "client_left"))


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _stopping(scope: Scope) -> bool:
    return "app" in scope and scope["app"].state.stopping.is_set()


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", UNMATCHED)
