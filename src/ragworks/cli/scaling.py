"""``ragworks scale``: how many replicas a service has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say, table


def scale(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Service of the running server")],
    instances: Annotated[
        str, typer.Argument(metavar="N|auto", help="Replicas that it should have, or auto: as many as its load needs")
    ],
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give a service of the running server N replicas; returns once new ones were tried or spare ones have drained.

    N holds until another or auto is given, or the server starts again: then the settings say how many there are.
    """
    wanted = _wanted(instances)
    found = run(_scale(Place(data, url, config), service, wanted))
    if as_json:
        emit(found)
        return
    rows = [(one["id"], one["pid"], one["status"], one["version"], one["note"]) for one in found["replicas"]]
    table(("replica", "pid", "status", "version", ""), rows)
    say(f"{service} has {len(rows)} replicas" + (", scaled by its load" if wanted is None else ""))


def _wanted(instances: str) -> int | None:
    """None for auto."""
    if instances == "auto":
        return None
    try:
        return int(instances)
    except ValueError:
        raise typer.BadParameter(
            f"expected a number of replicas or auto, found {instances!r}", param_hint="N"
        ) from None


async def _scale(place: Place, service: str, instances: int | None) -> dict[str, Any]:
    from ragworks.client import live_server
    from ragworks.errors import InvalidInput

    settings = place.settings()
    if place.url is None and await live_server(settings.server.data) is None:
        raise InvalidInput(
            f"no server runs on {settings.server.data}, so there is nothing to scale; start one with `ragworks serve`, "
            f"or set {service}.replicas.instances for its next start"
        )
    async with place.client() as client:
        return await client.scale(service, instances)
