"""``ragworks serve``: the server, and the folders that it takes in once it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ragworks.cli.failing import run
from ragworks.cli.ingesting import Given, ingest_sources
from ragworks.cli.options import Config, Data, Place
from ragworks.cli.output import say
from ragworks.cli.watching import watch_folders
from ragworks.errors import RagworksError
from ragworks.finding import find
from ragworks.logs import configure

Paths = Annotated[
    list[Path] | None, typer.Argument(exists=True, metavar="PATH", help="Files and folders to ingest once ready")
]


def serve(
    paths: Paths = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one [default: 8000]")
    ] = None,
    services: Annotated[
        str | None, typer.Option(metavar="A,B", help="Start only these services [default: all]")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the folders among the PATHs")] = True,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Table [profile.NAME] of the settings to lay over the rest")
    ] = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Serve the HTTP API until Ctrl-C or SIGTERM; ready when /readyz answers 200.

    PATHs are ingested into the collection default as soon as the server is ready; unchanged files are left alone.
    Folders are followed: new and changed files go in, documents whose file is gone go.
    """
    given = {"host": host, "port": port, "services": services}
    settings = Place(data, None, config).settings(server=given, profile=profile)
    configure(settings.log)
    run(_serve(settings, paths or [], watch), interrupted="stopped")


async def _serve(settings: Any, paths: Sequence[Path], watch: bool) -> None:
    from ragworks.api.server import serve
    from ragworks.app import build

    beside: list[asyncio.Task[None]] = []

    def on_listening(url: str) -> None:
        say(f"ragworks listens on {url}, data folder {settings.server.data}; API documentation at {url}/docs")
        say(f"ask:  ragworks ask 'your question' --data {settings.server.data}")
        folders = [path for path in paths if watch and path.is_dir()]
        if once := [path for path in paths if path not in folders]:
            beside.append(tasks.create_task(_take_in(settings, url, once), name="ingest paths"))
        if folders:
            beside.append(tasks.create_task(_follow(settings, url, folders), name="watch folders"))

    async with asyncio.TaskGroup() as tasks:
        await serve(
            build(settings, serving=True), settings.server.host, settings.server.port, on_listening=on_listening
        )
        for task in beside:
            task.cancel()


async def _take_in(settings: Any, url: str, paths: Sequence[Path]) -> None:
    """Ingest ``paths`` through the server's own door; a failure is a line in the log, never the end of the server."""
    from ragworks.client import connect

    try:
        sources, skipped = find(paths, Path(settings.server.data))
        for one in skipped:
            say(f"skipped: {one.path}: {one.reason}")
        async with connect(settings.server.data, url, settings) as client:
            await client.until_ready()
            tally = await ingest_sources(client, sources, Given(), lambda what, done, total, note="": None)
    except (RagworksError, OSError) as error:
        _say_failed(paths, error)
        return
    for failed in tally.failed:
        say(f"failed: {failed.name}: {failed.code}: {failed.message}")
    say(
        f"ingested {', '.join(map(str, paths))}: {tally.completed} of {tally.total} documents are in "
        f"({tally.unchanged} unchanged, {len(tally.failed)} failed)"
    )


async def _follow(settings: Any, url: str, folders: Sequence[Path]) -> None:
    """Follow ``folders`` through the server's own door until cancelled."""
    from ragworks.client import connect

    try:
        async with connect(settings.server.data, url, settings) as client:
            await client.until_ready()
            await watch_folders(client, folders, Path(settings.server.data), Given(), quiet=True)
    except (RagworksError, OSError) as error:
        _say_failed(folders, error)


def _say_failed(paths: Sequence[Path], error: Exception) -> None:
    say(f"ingesting {', '.join(map(str, paths))} failed: {getattr(error, 'code', 'os_error')}: {error}")
