"""The HTTP application, assembled: middlewares, error table, routes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware

from ragworks import __version__
from ragworks.api import admin, answer_routes, collection_routes, insights, job_routes, openai, problems, schemas
from ragworks.api.middleware import BodyLimit, HeadAsGet, LocalOnly, Observed
from ragworks.settings import ProcessorSettings

if TYPE_CHECKING:
    from ragworks.app import App

ROUTERS: tuple[APIRouter, ...] = (
    admin.router,
    collection_routes.router,
    collection_routes.ingestion,
    collection_routes.documents,
    job_routes.router,
    answer_routes.router,
    insights.router,
    openai.router,
)

# Parsing JSON holds the event loop: 32 MiB take about 0.1 s, which a readiness probe still survives.
JSON_BYTES = 32 * 1024**2
# What a multipart body holds besides the files: 1 KiB of headers each, and the metadata.
PART_BYTES = 1024
FORM_BYTES = 1024**2
# Shown at zero before they happen: of a counter that appears with its first failures, Prometheus sees no rise.
FAULTS = (500, 502, 503)


def create_api(app: App, *, local_hosts: Collection[str] | None = None) -> FastAPI:
    """The API of ``app``, which may still be starting: routes answer 503 until their services are up.

    ``local_hosts`` are the only names by which a server on a loopback address may be called; None allows all.
    """
    api = FastAPI(
        title="ragworks",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Observed, metrics=app.metrics),
            Middleware(HeadAsGet),
            Middleware(LocalOnly, hosts=local_hosts),
            Middleware(
                BodyLimit,
                json_bytes=JSON_BYTES,
                upload_bytes=_upload_bytes(app.settings.document_processor),
                record=app.journal.for_service("orchestration_api"),
            ),
        ],
    )
    api.state.app = app
    api.state.stopping = asyncio.Event()
    problems.install(api, app.metrics)
    for router in ROUTERS:
        api.include_router(router)
    for route in _routes():
        for method in sorted(route.methods or ()):
            for status in (route.status_code or 200, *FAULTS):
                app.metrics.expect_route(route.path, method, status)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign]
    return api


def _upload_bytes(settings: ProcessorSettings) -> int:
    return settings.max_queue_bytes + settings.max_queue_size * PART_BYTES + FORM_BYTES


def _routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def _openapi(api: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the bodies that our strict reader takes in place of FastAPI's."""
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, description=__doc__, routes=api.routes)
        models = [(model, "validation") for model in (*schemas.REQUESTS, *openai.REQUESTS)]
        _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        document.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
        api.openapi_schema = document
    return api.openapi_schema
