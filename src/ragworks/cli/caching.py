"""``ragworks cache``: what the embedding cache saves, and emptying its memory."""

from __future__ import annotations

from typing import Any

import typer

from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say, table

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at the embedding cache, or empty it.")


@commands.command()
def stats(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show entries, bytes, hits and misses since the server started; without a server there is nothing to count."""

    async def work() -> dict[str, Any]:
        async with Place(data, url, config).client() as client:
            return await client.cache()

    found = run(work())
    if as_json:
        emit(found)
        return
    memory = (f"{found['entries']} of {found['max_entries']}", f"{found['bytes'] / 1024:.1f} KiB")
    rows = [("memory", *memory, found["memory_hits"]), ("stored vectors", None, None, found["stored_hits"])]
    table(("tier", "entries", "size", "hits"), rows)
    print(f"hit rate {found['hit_rate']:.1%}; went to the model ({found['model']}): {found['misses']} texts")


@commands.command()
def clear(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Forget the vectors in memory; those of stored passages stay, because they are the passages' own."""

    async def work() -> dict[str, Any]:
        async with Place(data, url, config).client() as client:
            return await client.clear_cache()

    found = run(work())
    if as_json:
        emit(found)
    else:
        say(f"forgot {found['cleared']} vectors")
