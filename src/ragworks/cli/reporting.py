"""``ragworks status``: what runs, how it is doing, what waits, and what was decided last."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from ragworks.cli.explaining import COLUMNS, clock_time, row
from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import Grid, drawn, emit, harmless, show
from ragworks.errors import ClientError, ServerProblem

WATCH_EVERY_S = 2.0
LAST_EVENTS = 3
HEALTHS = ("healthy", "degraded", "unhealthy")

SERVICE_COLUMNS = ("service", "state", "health", "replicas", "check", "reason")
REPLICA_COLUMNS = ("replica", "pid", "life", "health", "ver", "calls", "average", "errors", "cpu", "mem")

Found = dict[str, Any]


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds, until Ctrl-C")] = False,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show services, replicas, load, queue and the latest events. Exit code 0 if search can be answered, else 1."""
    place = Place(data, url, config)
    if watch:
        with suppress(KeyboardInterrupt):  # how it is meant to end
            asyncio.run(_watch(place, as_json))
        return
    found = run(_look(place))
    if as_json:
        emit(found)
    else:
        show(_parts(found))
    if not found["ready"]:
        raise typer.Exit(FAILED)


async def _look(place: Place) -> Found:
    async with place.client() as client:
        ready, waiting = await client.ready()
        services = await client.services()
        try:
            events = await client.events(service=None, since=0.0, limit=LAST_EVENTS)
        except ServerProblem:  # the rest is worth showing, whatever is wrong with the log of events
            events = []
        where = client.where
    processor = next((one for one in services if one["name"] == "document_processor"), {})
    stats = processor.get("stats") or {}
    return {
        "where": where,
        "ready": ready,
        "waiting": waiting,
        "queue_size": stats.get("queue_size"),
        "queue_oldest_s": stats.get("oldest_waiting_s"),
        "services": services,
        "events": events,
    }


async def _watch(place: Place, as_json: bool) -> None:
    with _drawing(as_json) as draw:
        async for found in _looks(place):
            draw(found)


async def _looks(place: Place) -> AsyncIterator[Found]:
    """One look after the other. A server that is not there may come back, and is never replaced by one of our own."""
    from ragworks.client import live_server

    settings = place.settings()
    while True:
        try:
            if not (place.url or await live_server(settings.server.data)):
                yield _nobody(settings.server.data, "no server runs on this data folder")
            else:
                yield await _look(place)
        except ClientError as error:
            yield _nobody(place.url or settings.server.data, str(error))
        await asyncio.sleep(WATCH_EVERY_S)


def _nobody(where: str, problem: str) -> Found:
    empty: Found = {"waiting": {}, "queue_size": None, "queue_oldest_s": None, "services": [], "events": []}
    return {"where": where, "ready": False, "problem": problem, **empty}


@contextmanager
def _drawing(as_json: bool) -> Iterator[Callable[[Found], None]]:
    """Draws looks: over each other on a terminal, one below the other elsewhere, a line each as JSON."""
    if as_json or not sys.stdout.isatty():
        yield _as_line if as_json else _as_block
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        yield lambda found: live.update(drawn([f"{_now()}, Ctrl-C ends", *_parts(found)]), refresh=True)


def _as_line(found: Found) -> None:
    print(json.dumps(found, ensure_ascii=False), flush=True)


def _as_block(found: Found) -> None:
    show([_now(), *_parts(found), ""])
    sys.stdout.flush()


def _now() -> str:
    return clock_time(time.time())


def _parts(found: Found) -> list[str | Grid]:
    replicas = [one for service in found["services"] for one in service["replicas"]]
    services = [_service(one, found["waiting"]) for one in found["services"]]
    parts: list[str | Grid] = [_headline(found)]
    if services:
        parts += ["", Grid(SERVICE_COLUMNS, services)]
        parts += [harmless(_scaling(one["name"], one["scaling"])) for one in found["services"] if one.get("scaling")]
    if replicas:
        parts += ["", Grid(REPLICA_COLUMNS, [_replica(one) for one in replicas], gap=1)]  # fits into 80 columns
        parts += [harmless(f"{one['id']}: {' '.join(one['note'].split())}") for one in replicas if one.get("note")]
    if found["events"]:
        parts += ["", Grid(COLUMNS, [row(event) for event in found["events"]])]
    return parts


def _headline(found: Found) -> str:
    queue = ""
    if found["queue_size"] is not None:
        oldest = f", the oldest for {_length(found['queue_oldest_s'])}" if found["queue_oldest_s"] else ""
        queue = f", {found['queue_size']} documents queued{oldest}"
    problem = f": {found['problem']}" if "problem" in found else ""
    opened = "" if problem or found["where"].startswith("http") else "no server runs, opened here for this look: "
    return harmless(f"{found['where']}: {opened}{'ready' if found['ready'] else 'not ready'}{problem}{queue}")


def _service(one: Mapping[str, Any], waiting: Mapping[str, str]) -> tuple[Any, ...]:
    health = one.get("health") or {}
    details = health.get("details") or {}
    why = "; ".join(filter(None, (one.get("error") or waiting.get(one["name"]) or details.get("reason"), _queue(one))))
    lives = [_life(replica) for replica in one["replicas"]]
    replicas = f"{lives.count('ready')} of {len(lives)}" if lives else "0"
    check = f"{health['response_time_ms']:.1f} ms" if health else None
    return one["name"], one["status"], health.get("status"), replicas, check, why


def _queue(one: Mapping[str, Any]) -> str:
    calls = one.get("calls") or {}
    return f"{calls['queued']:.0f} wait, the oldest {_length(calls['queue_age_s'])}" if calls.get("queued") else ""


def _scaling(name: str, scaling: Mapping[str, Any]) -> str:
    last = f": {scaling['action']}, {scaling['reason']}" if scaling["reason"] else ""
    forecast = _forecast(scaling.get("forecast"))  # an older server says nothing of it
    return f"{name} is scaled {'by hand' if scaling['mode'] == 'pinned' else 'by its load'}{last}{forecast}"


def _forecast(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    between = f"{found['low']:.1f} to {found['high']:.1f}"
    said = f"; {found['expected']:.1f} calls at once expected in {found['in_s']:g} s, {between}"
    if found["covered"] is None:
        return said
    return f"{said} (it was so in {100 * found['covered']:.0f} %, meant: {100 * found['level']:g} %)"


def _replica(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        one["id"],
        one["pid"],
        _life(one),
        one["status"] if one["status"] in HEALTHS else None,
        one["version"],
        one["active_connections"],
        _length(one["avg_response_time"]),
        _per_cent(one.get("error_rate"), 100.0),
        _per_cent(one.get("cpu_usage")),
        _per_cent(one.get("memory_usage")),
    )


def _life(replica: Mapping[str, Any]) -> str:
    """An older server only says how a replica is, and that only of those that are up."""
    return str(replica.get("life") or ("ready" if replica["status"] in HEALTHS else replica["status"]))


def _length(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.1f} ms"


def _per_cent(value: float | None, scale: float = 1.0) -> str | None:
    return None if value is None else f"{value * scale:.3g}%"
