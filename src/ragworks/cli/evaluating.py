"""``ragworks eval``: how well search finds what people judged relevant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragworks.cli.asking import ModeOption
from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, Place, TopK, Url
from ragworks.cli.output import emit, say, table
from ragworks.cli.progress import showing

if TYPE_CHECKING:
    from ragworks.client import Client

Datasets = Annotated[
    list[str],
    typer.Argument(metavar="DATASET", help="Folders with corpus.jsonl, queries.jsonl and qrels.tsv (BEIR)"),
]


def evaluate(
    datasets: Datasets,
    mode: ModeOption = "hybrid",
    top_k: TopK = 100,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Send the earlier turns that a question has")
    ] = True,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Score search on judged questions: nDCG@10, Recall@10, Recall@100, MRR@10 and latency, per set and on average.

    Each corpus goes into a collection of its own, named by its content, through the same path as any document.
    Without --data or --url the data folder is thrown away afterwards; with one of them a second run finds every
    document unchanged.
    """
    found = run(_evaluate(Place(data, url, config), datasets, mode, top_k, history, as_json))
    if as_json:
        emit(found)
        return
    columns = ("set", "questions", "documents", "nDCG@10", "R@10", "R@100", "MRR@10", "p50 ms", "p95 ms", "p99 ms")
    rows: list[tuple[Any, ...]] = [
        (one["dataset"], one["questions"], one["documents"], *_measures(one), *_latencies(one)) for one in found["sets"]
    ]
    if len(rows) > 1:
        rows.append(("mean", "", "", *_measures(found["mean"]), "", "", ""))
    table(columns, rows)
    for one in found["sets"]:
        if one["documents_failed"]:
            say(f"{one['dataset']}: {one['documents_failed']} of {one['documents']} documents could not be indexed")


async def _evaluate(
    place: Place, folders: Sequence[str], mode: Any, top_k: int, history: bool, quiet: bool
) -> dict[str, Any]:
    from ragworks import evaluate

    sets = [evaluate.read_dataset(folder) for folder in folders]
    with showing(quiet) as progress:
        async with _client(place) as client:
            found = [
                await evaluate.evaluate(client, one, mode=mode, top_k=top_k, history=history, on_progress=progress)
                for one in sets
            ]
    return evaluate.report(found)


@asynccontextmanager
async def _client(place: Place) -> AsyncIterator[Client]:
    from tempfile import TemporaryDirectory

    if place.data is not None or place.url is not None:
        async with place.client(create=True) as client:
            yield client
        return
    with TemporaryDirectory(prefix="ragworks-eval-") as folder:
        async with Place(folder, None, place.config).client(create=True) as client:
            yield client


def _measures(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{one[measure]:.4f}" for measure in ("ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10"))


def _latencies(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{value:.1f}" for value in one["latency_ms"].values())
