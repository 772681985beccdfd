"""``ragworks collections`` and ``ragworks documents``: list and delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, InCollection, Place, Url
from ragworks.cli.output import emit, say, table

collection_commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, make and delete collections."
)
document_commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List and delete documents.")

Name = Annotated[str, typer.Argument(help="Collection")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Documents, as `documents list` names them")]


@collection_commands.command("list")
def list_collections(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the collections."""

    async def work() -> list[dict[str, Any]]:
        async with Place(data, url, config).client() as client:
            return await client.collections()

    found = run(work())
    if as_json:
        emit({"data": found})
    else:
        table(("collection", "model"), [(one["name"], one.get("fingerprint") or "(empty)") for one in found])


@collection_commands.command("create")
def create_collection(
    name: Name, data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Make a collection; one that is there already is left as it is."""

    async def work() -> None:
        async with Place(data, url, config).client(create=True) as client:
            await client.ensure_collection(name)

    run(work())
    _done({"name": name}, f"collection {name!r} is there", as_json)


@collection_commands.command("delete")
def delete_collection(
    name: Name, data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Delete a collection with all its documents, passages and vectors."""

    async def work() -> None:
        async with Place(data, url, config).client() as client:
            await client.drop_collection(name)

    run(work())
    _done({"deleted": name}, f"collection {name!r} is deleted", as_json)


@document_commands.command("list")
def list_documents(
    collection: InCollection = "default",
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the documents of a collection."""

    async def work() -> list[dict[str, Any]]:
        async with Place(data, url, config).client() as client:
            return await client.documents(collection)

    found = run(work())
    if as_json:
        emit({"data": found})
        return
    rows = [(one["id"], one["title"], one["chunk_count"], "; ".join(one["warnings"])) for one in found]
    table(("document", "title", "passages", "warnings"), rows)


@document_commands.command("delete")
def delete_documents(
    ids: Ids,
    collection: InCollection = "default",
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents with their passages and vectors."""

    async def work() -> None:
        async with Place(data, url, config).client() as client:
            for document_id in ids:
                await client.delete_document(collection, document_id)

    run(work())
    _done({"deleted": ids}, f"deleted {len(ids)} of {len(ids)} from collection {collection!r}", as_json)


def _done(value: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        emit(value)
    else:
        say(sentence)
