"""``ragworks search`` and ``ragworks ask``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, InCollection, Place, TopK, Url
from ragworks.cli.output import emit, harmless, one_line, say, table

if TYPE_CHECKING:
    from ragworks.client import Client

QUOTE_WIDTH = 200
MODES = ("hybrid", "dense", "lexical")

ModeOption = Annotated[
    Literal["hybrid", "dense", "lexical"],
    typer.Option(metavar="|".join(MODES), help="Search by vectors, by words, or by both"),
]


def search(
    query: Annotated[str, typer.Argument(help="Words or a question")],
    collection: InCollection = "default",
    top_k: TopK = 10,
    mode: ModeOption = "hybrid",
    filter: Annotated[
        str | None, typer.Option(metavar="JSON", help='Such as {"type": "eq", "key": "year", "value": 2026}')
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Rerank within the time budget")] = False,
    group_by: Annotated[
        Literal["document"] | None, typer.Option(metavar="document", help="Only the best passage of each document")
    ] = None,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find passages, best first, with the document, page and score of each."""
    body: dict[str, Any] = {"query": query, "top_k": top_k, "mode": mode, "rerank": rerank}
    if filter is not None:
        body["filter"] = parsed_object(filter, "--filter")
    if group_by is not None:
        body["group_by"] = group_by
    run(_search(Place(data, url, config), collection, body, as_json))


async def _search(place: Place, collection: str, body: dict[str, Any], as_json: bool) -> None:
    async with place.client() as client:
        found = await client.search(collection, body)
    if as_json:
        emit(found)
        return
    if not found["results"]:
        say(f"nothing found in collection {collection!r}")
        return
    table(
        ("#", "score", "document", "page", "passage"),
        [
            (rank, f"{hit['score']:.3f}", hit["document_id"], hit["page"], one_line(hit["text"], QUOTE_WIDTH))
            for rank, hit in enumerate(found["results"], start=1)
        ],
    )
    if found.get("degraded"):
        say(f"degraded: {found['degraded']}")


def ask(
    question: Annotated[str, typer.Argument(help="The question")],
    collection: InCollection = "default",
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", min=1, max=50, metavar="N", help="Passages that the answer may use")
    ] = None,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the documents, with a citation for what it says."""
    body: dict[str, Any] = {"question": question} | ({} if top_k is None else {"top_k": top_k})
    run(_ask(Place(data, url, config), collection, body, as_json))


async def _ask(place: Place, collection: str, body: dict[str, Any], as_json: bool) -> None:
    async with place.client() as client:
        if as_json:
            emit(await client.ask(collection, body))
            return
        answer = await _streamed(client, collection, body)
    for one in answer.get("citations", ()):
        page = f", page {one['page']}" if one["page"] is not None else ""
        print(f"[{one['marker']}] {harmless(one['document_id'])}{page}: “{one_line(one['quote'], QUOTE_WIDTH)}”")


async def _streamed(client: Client, collection: str, body: dict[str, Any]) -> dict[str, Any]:
    """Print the answer as it comes; return it whole."""
    answer: dict[str, Any] = {}
    printed = ""
    async for piece in client.ask_streaming(collection, body):
        if isinstance(piece, str):
            printed += piece
            sys.stdout.write(harmless(piece))
            sys.stdout.flush()
        else:
            answer = piece
    # What was streamed may hold markers that did not resolve; the whole answer is the checked one.
    if not printed:
        sys.stdout.write(harmless(answer.get("answer", "")))
    sys.stdout.write("\n\n" if answer.get("citations") else "\n")
    return answer


def parsed_object(text: str, option: str) -> dict[str, Any]:
    """The JSON object in ``text``; anything else is wrong usage of ``option``."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"must be a JSON object, found {text!r} ({error})", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"must be a JSON object, found {text!r}", param_hint=option)
    return value
