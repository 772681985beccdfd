"""Routes for whoever runs the server: life, readiness, health, services, metrics, doctor, documentation."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ragworks.api import schemas
from ragworks.api.bodies import accepts, body
from ragworks.api.context import PROBLEM, After, Limit, app_of, needs, problems
from ragworks.errors import InvalidInput, NotReady
from ragworks.reports import ServiceReport
from ragworks.settings import known_service
from ragworks.types import Health

router = APIRouter(tags=["operation"])

RETRY_READY_S = 1.0
MAX_ID_DIGITS = 18  # of SQLite's 64 bits


class NothingReady(NotReady):
    """Search cannot be answered yet; ``services`` says what is not up, and why."""

    def __init__(self, services: dict[str, str]) -> None:
        super().__init__(
            f"search cannot be answered yet: {', '.join(services) or 'the services'} not up", RETRY_READY_S
        )
        self.services = services


@router.get("/livez")
async def live() -> schemas.Live:
    """The process answers. Asks nothing of any service."""
    return schemas.Live()


@router.get("/readyz", response_model=schemas.Ready, response_model_exclude_none=True, responses={503: dict(PROBLEM)})
async def ready(request: Request, verbose: Annotated[str | None, Query()] = None) -> Any:
    """Search can be answered. ``?verbose`` names what is not up or not well, and why."""
    orchestrator = app_of(request).orchestrator
    up, missing = orchestrator.ready()
    if not up:
        raise NothingReady(missing)
    if verbose is None:
        return schemas.Ready(ready=True)
    return schemas.Ready(ready=True, services=_unwell(await orchestrator.services()) | missing)


@router.get("/health", responses={503: {"model": schemas.Health}})
async def health(request: Request, response: Response) -> schemas.Health:
    """How each service is doing; 503 when search cannot be answered."""
    app = app_of(request)
    up, _ = app.orchestrator.ready()
    reports = await app.orchestrator.services()
    if not up:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return schemas.Health(status=_overall(up, reports), services=[_health(report) for report in reports])


@router.get("/v1/services", responses=problems())
async def list_services(request: Request) -> schemas.Services:
    """Each service with its state, health, replicas and statistics."""
    reports = await app_of(request).orchestrator.services()
    return schemas.Services(data=[schemas.Service.model_validate(report) for report in reports])


@router.post(
    "/v1/services/{name}/scale",
    responses=problems(400, 404, 415, 422),
    openapi_extra=accepts(schemas.ScaleRequest),
)
async def scale_service(
    request: Request,
    name: str,
    wanted: Annotated[schemas.ScaleRequest, Depends(body(schemas.ScaleRequest))],
) -> schemas.Service:
    """Give a service so many replicas; answers once new ones were tried, or those that are too many have drained.

    The number holds until another is given, or ``{"mode": "auto"}``, which scales the service by its load again.
    """
    orchestrator = app_of(request).orchestrator
    if wanted.instances is not None and wanted.mode is None:
        await orchestrator.scale(name, wanted.instances, "asked for by hand")
    elif wanted.mode is not None and wanted.instances is None:
        orchestrator.scale_by_load(name, "asked for by hand")
    else:
        raise InvalidInput('expected either "instances", a whole number from 1, or "mode": "auto"')
    return schemas.Service.model_validate(orchestrator.report(name))


@router.get("/v1/events", responses=problems(422))
async def list_events(
    request: Request,
    limit: Limit = 100,
    after: After = None,
    service: Annotated[str | None, Query(description="only events of this service")] = None,
    since: Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds since the epoch")] = 0.0,
    order: Annotated[Literal["desc", "asc"], Query(description="newest first, or oldest first")] = "desc",
) -> schemas.ListOf[schemas.Event]:
    """List decisions of the control plane, newest first, each with its inputs, its reason and the policy that made it.

    With ``order=asc`` oldest first: who polls with the ``last_id`` of the answer before misses none.
    """
    id_, newest_first = _event_id(after), order == "desc"
    found = await app_of(request).journal.recent(
        service=None if service is None else known_service(service),
        since=since,
        **({"before": id_} if newest_first else {"after": id_ or 0}),
        limit=limit + 1,  # one more than asked for says whether there are more
    )
    data = (found[::-1] if newest_first else found)[:limit]
    last_id = str(data[-1].id) if data else after
    return schemas.ListOf(data=[schemas.event(one) for one in data], has_more=len(found) > limit, last_id=last_id)


@router.get("/v1/doctor", dependencies=[needs("vector_store")], responses=problems())
async def doctor(request: Request) -> schemas.Checkup:
    """Compare rows, vectors, words and files, and say what does not agree."""
    return schemas.Checkup.model_validate(await app_of(request).vector_store.checkup())


@router.get("/v1/cache", dependencies=[needs("embeddings_service")], responses=problems())
async def cache(request: Request) -> schemas.Cache:
    """What the embedding cache holds and saved since the start: ``misses`` are the texts that went to the model."""
    return schemas.Cache.model_validate(app_of(request).embeddings_service.cache_report())


@router.delete("/v1/cache", dependencies=[needs("embeddings_service")], responses=problems())
async def clear_cache(request: Request) -> schemas.CacheCleared:
    """Forget the vectors in memory. Those of stored passages are the passages' own and stay."""
    return schemas.CacheCleared(cleared=app_of(request).embeddings_service.clear_cache())


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(app_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """All routes on one page that loads nothing from elsewhere."""
    return HTMLResponse(page(request.app.openapi()))


def page(schema: dict[str, Any]) -> str:
    """The OpenAPI document ``schema`` as HTML."""
    rows = "".join(
        f"<tr><td><code>{method}</code></td><td><code>{html.escape(path)}</code></td><td>{_prose(text)}</td></tr>"
        for path, method, text in _operations(schema)
    )
    title = html.escape(schema["info"]["title"])
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        "<style>body{font:16px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}"
        "td{padding:.2em .8em;vertical-align:top}</style>"
        f"<h1>{title}</h1><p>The full description is <a href='/openapi.json'>/openapi.json</a>.</p>"
        f"<table>{rows}</table></html>"
    )


def _event_id(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > MAX_ID_DIGITS:
        raise InvalidInput(f"after: expected the id of an event, found {after!r}; list without it")
    return int(after)


def _prose(text: str) -> str:
    return re.sub("``(.+?)``", r"<code>\1</code>", html.escape(text))


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation.get("description", "")


def _overall(up: bool, reports: list[ServiceReport]) -> str:
    if not up:
        return Health.UNHEALTHY
    well = all(report.health is not None and report.health.status is Health.HEALTHY for report in reports)
    return Health.HEALTHY if well else Health.DEGRADED


def _unwell(reports: list[ServiceReport]) -> dict[str, str]:
    """Why each service that is up is not healthy."""
    return {
        report.name: f"{report.health.status}: {report.health.details.get('reason', 'it gives no reason')}"
        for report in reports
        if report.health is not None and report.health.status is not Health.HEALTHY
    }


def _health(report: ServiceReport) -> schemas.ServiceHealth:
    if report.health is not None:
        return schemas.ServiceHealth.model_validate(report.health)
    details = {"status": report.status, "error": report.error, "waiting_for": list(report.waiting_for)}
    return schemas.ServiceHealth(
        service_name=report.name,
        status=Health.UNHEALTHY,
        response_time_ms=0,
        error_count=0,
        last_check=0,
        details=details,
    )
