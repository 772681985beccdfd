"""One request to one OpenAI-compatible endpoint, and what its answer means. Whom to ask is not decided here."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx

from ragworks import tracing
from ragworks.control_protocols import EndpointFailed, endpoint_id
from ragworks.policies.retrying import named_s
from ragworks.protocols import Clock
from ragworks.tracing import Attributes, Off, Span

MAX_RETRY_AFTER_S = 3600.0
REFUSED = (400, 413, 422)
"""What the request is to blame for. 500 may be its doing too: llama.cpp answers it to a text that is too long."""
HINTS = {
    401: "; check {section}.api_key, or OPENAI_API_KEY",
    403: "; check what {section}.api_key may do",
    404: "; check {section}.model and urls, which usually end in /v1",
}
MESSAGE_CHARACTERS = 300


class RequestRefused(Exception):
    """The endpoint refuses the request for what it is."""


def traced_post(url: str, route: str) -> Span | Off:
    """The span of a request to an endpoint; it names no more of the URL than ``endpoint_id`` does."""
    named = endpoint_id(url)
    host = urlsplit(url)
    attributes: Attributes = {
        "http.request.method": "POST",
        "server.address": host.hostname or "",
        "server.port": host.port or (443 if host.scheme == "https" else 80),
        "url.full": f"{host.scheme}://{named}{route}",
    }
    return tracing.span("POST", attributes, "client")


def propagated() -> dict[str, str]:
    """The headers by which an endpoint can go on with the trace."""
    header = tracing.traceparent()
    return {"traceparent": header} if header else {}


class EndpointClient:
    """``section`` is where the settings are that a failure may be mended by. Opened before use, closed after."""

    def __init__(self, section: str, api_key: str, timeout_s: float, clock: Clock) -> None:
        self._section, self._key, self._timeout_s, self._clock = section, api_key, timeout_s, clock
        self._http: httpx.AsyncClient | None = None

    def open(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=None)

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def post(self, url: str, route: str, body: dict[str, Any]) -> bytes:
        """What it answers with 200. Raises EndpointFailed, RequestRefused."""
        http = self.http(url)
        with traced_post(url, route) as span:
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await http.post(url + route, json=body, headers=propagated())
            except (TimeoutError, httpx.HTTPError) as error:
                raise self.unreachable(url, error) from error
            span.set("http.response.status_code", response.status_code)
            if response.status_code != 200:
                raise self.failure(url, response)
            return response.content

    def http(self, url: str) -> httpx.AsyncClient:
        if self._http is None:
            raise EndpointFailed(f"{url} was not opened, or is closed")
        return self._http

    def unreachable(self, url: str, error: Exception) -> EndpointFailed:
        if isinstance(error, TimeoutError):
            return EndpointFailed(f"{url} did not answer within {self._timeout_s:g} s")
        return EndpointFailed(f"{url} cannot be asked ({type(error).__name__}: {error})")

    def failure(self, url: str, response: httpx.Response) -> EndpointFailed | RequestRefused:
        """What a response that was read, and is not 200, means."""
        status = response.status_code
        said = f"{url} answered {status}: {self._message(response)}"
        if status in REFUSED:
            return RequestRefused(said)
        named = named_s(response.headers.get("Retry-After", ""), self._clock.now())
        return EndpointFailed(
            said + HINTS.get(status, "").format(section=self._section),
            None if named is None else min(named, MAX_RETRY_AFTER_S),
            suspect=status == 500,
            misconfigured=status in HINTS,
        )

    def _message(self, response: httpx.Response) -> str:
        """What the endpoint says of its error, on one line, without the key that it may repeat."""
        try:
            body = response.json()
            error = body.get("error", body) if isinstance(body, dict) else body
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except ValueError:
            text = response.text
        if self._key:
            text = text.replace(self._key, "(hidden)")
        return " ".join(text.split())[:MESSAGE_CHARACTERS] or response.reason_phrase
