"""Following folders: what ``ragworks ingest --watch`` and ``ragworks serve`` do once they can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragworks.cli.ingesting import Given, ingest_sources
from ragworks.cli.output import say
from ragworks.cli.progress import showing

if TYPE_CHECKING:
    from ragworks.client import Client
    from ragworks.feed import Tally
    from ragworks.finding import Source

FEW = 64  # files that go in without a word on how far they are


async def watch_folders(
    client: Client, folders: Sequence[Path], data_folder: Path, given: Given, *, quiet: bool = False
) -> None:
    """Bring the collection up with the folders, then follow them until cancelled.

    Raises InvalidInput if two of their files would be the same document.
    """
    from ragworks.clock import SystemClock
    from ragworks.finding import find
    from ragworks.watching import FolderWatch

    async def submit(sources: Sequence[Source]) -> Tally:
        with showing(quiet or len(sources) <= FEW) as progress:
            return await ingest_sources(client, sources, given, progress)

    if len(folders) > 1:
        await asyncio.to_thread(find, folders, data_folder)
    await client.ensure_collection(given.collection)
    async with asyncio.TaskGroup() as tasks:
        for folder in folders:
            watch = FolderWatch(
                client,
                folder,
                given.collection,
                data_folder=data_folder,
                submit=submit,
                say=say,
                clock=SystemClock(),
            )
            tasks.create_task(watch.run(), name=f"watch {folder}")
