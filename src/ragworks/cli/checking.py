"""``ragworks doctor``."""

from __future__ import annotations

from typing import Any

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say


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
