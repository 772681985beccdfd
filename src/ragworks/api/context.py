"""What a route asks of its surroundings: the App, and that the services it needs are up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Query, Request

from ragworks.api.schemas import Problem

if TYPE_CHECKING:
    from ragworks.app import App

MAX_PAGE = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="entries in one answer")]
After = Annotated[str | None, Query(description="the last_id of the answer before")]

PROBLEM: dict[str, Any] = {"model": Problem, "content": {"application/problem+json": {}}}


def app_of(request: Request) -> App:
    app: App = request.app.state.app
    return app


def stopping_of(request: Request) -> asyncio.Event:
    """Set once the server stops: what would wait for ever ends then."""
    event: asyncio.Event = request.app.state.stopping
    return event


def request_id_of(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


def needs(*services: str) -> Any:
    """A dependency that answers 503 before the body is read while one of ``services`` is not up."""

    async def admit(request: Request) -> None:
        for service in services:
            app_of(request).orchestrator.require(service)

    return Depends(admit)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the errors that a route may answer, besides those that every route may."""
    return {status: dict(PROBLEM) for status in sorted({*statuses, 500, 503})}
