"""``ragworks status`` and ``ragworks doctor``."""

from __future__ import annotations

from typing import Any

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say, table


def status(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show every service: state, health, replicas, load. Exit code 0 if search can be answered, else 1."""
    found = run(_status(Place(data, url, config)))
    if as_json:
        emit(found)
    else:
        _print_status(found)
    if not found["ready"]:
        raise typer.Exit(FAILED)


async def _status(place: Place) -> dict[str, Any]:
    async with place.client() as client:
        ready, waiting = await client.ready()
        services = await client.services()
        where = client.where
    processor = next((one for one in services if one["name"] == "document_processor"), {})
    queue_size = (processor.get("stats") or {}).get("queue_size")
    return {"where": where, "ready": ready, "waiting": waiting, "queue_size": queue_size, "services": services}


def _print_status(found: dict[str, Any]) -> None:
    queue = "" if found["queue_size"] is None else f", {found['queue_size']} documents queued"
    print(f"{found['where']}: {'ready' if found['ready'] else 'not ready'}{queue}")
    columns = ("service", "status", "health", "replicas", "check", "")
    table(columns, [_service(one, found["waiting"]) for one in found["services"]])


def _service(one: dict[str, Any], waiting: dict[str, str]) -> tuple[Any, ...]:
    health = one.get("health") or {}
    details = health.get("details") or {}
    why = one.get("error") or waiting.get(one["name"]) or details.get("reason")
    check = f"{health['response_time_ms']:.1f} ms" if health else None
    return one["name"], one["status"], health.get("status"), len(one["replicas"]), check, why


def doctor(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Check that documents, passages, vectors, words and files agree. Exit code 1 if something differs."""
    found = run(_doctor(Place(data, url, config)))
    if as_json:
        emit(found)
    else:
        counts = ", ".join(f"{found[kind]} {kind}" for kind in ("documents", "chunks", "vectors", "words", "blobs"))
        print(f"{'healthy' if found['healthy'] else 'not healthy'}: {counts}")
        for problem in found["problems"]:
            print(f"- {problem}")
    if not found["healthy"]:
        say("restart the server: it rebuilds indexes and collects leftovers; ingest again what is missing after that")
        raise typer.Exit(FAILED)


async def _doctor(place: Place) -> dict[str, Any]:
    async with place.client() as client:
        return await client.doctor()
