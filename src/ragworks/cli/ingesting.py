"""``ragworks ingest``: files and folders in, at the pace of the server, with a word about each that failed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, InCollection, InOrder, Place, Url
from ragworks.cli.output import emit, say, table
from ragworks.cli.progress import Progress, left, showing
from ragworks.errors import InvalidInput, ServerUnreachable
from ragworks.finding import Skipped, Source, find

if TYPE_CHECKING:
    from ragworks.client import Client, Json
    from ragworks.feed import Tally
    from ragworks.types import Priority

Paths = Annotated[list[Path], typer.Argument(exists=True, metavar="PATH", help="Files, or folders with all below them")]


@dataclass(frozen=True, slots=True)
class Given:
    """What holds for all documents of a command."""

    collection: str = "default"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "normal"


FEW_SKIPPED = 5  # that an error names
RESUME = "what was accepted is on disk and goes on with it; then run the same command again: what is in is left alone"
INTERRUPTED = "interrupted; what was accepted is on disk and goes on with the server (`ragworks jobs` shows it)"


def ingest(
    paths: Paths,
    collection: InCollection = "default",
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="For every document; repeatable")
    ] = None,
    priority: InOrder = "normal",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every document has ended")] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="Then follow the folders until Ctrl-C: new, changed and deleted files")
    ] = False,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add files to a collection. A file that is in already is left alone, a changed one replaces its former version.

    Hidden files, the data folder and links out of a folder are skipped. Exit code 0 only if every document went in;
    with 1 the others are in nevertheless, and the table says what failed and why.
    """
    place = Place(data, url, config)
    given = Given(collection, parsed_metadata(metadata or []), priority)
    if watch:
        _watch(place, paths, given, wait, as_json)
        return
    summary = run(_ingest(place, paths, given, wait, as_json), interrupted=INTERRUPTED)
    if as_json:
        emit(summary)
    else:
        show(summary)
    if summary["failed"] or summary["file_counts"]["cancelled"]:
        raise typer.Exit(FAILED)


def _watch(place: Place, paths: Sequence[Path], given: Given, wait: bool, as_json: bool) -> None:
    from ragworks.cli.watching import watch_folders

    if as_json or not wait or not all(path.is_dir() for path in paths):
        raise typer.BadParameter("goes with folders only, and without --json and --no-wait", param_hint="--watch")

    async def work() -> None:
        async with place.client(create=True) as client:
            await watch_folders(client, paths, Path(place.settings().server.data), given)

    run(work(), interrupted="no longer watching")


async def _ingest(place: Place, paths: Sequence[Path], given: Given, wait: bool, quiet: bool) -> dict[str, Any]:
    sources, skipped = find(paths, Path(place.settings().server.data))
    if not sources:
        why = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:FEW_SKIPPED])
        why += f"; and {len(skipped) - FEW_SKIPPED} more" if len(skipped) > FEW_SKIPPED else ""
        raise InvalidInput(f"there is no file to ingest in {', '.join(map(str, paths))}{f' ({why})' if why else ''}")
    started = time.perf_counter()
    with showing(quiet) as progress:
        async with place.client(create=True) as client:
            try:
                tally = await ingest_sources(client, sources, given, progress, wait=wait)
            except ServerUnreachable as error:
                raise ServerUnreachable(f"{error} {RESUME}") from error
    return summarised(given.collection, tally, skipped, wait, time.perf_counter() - started)


async def ingest_sources(
    client: Client,
    sources: Sequence[Source],
    given: Given,
    progress: Progress,
    *,
    wait: bool = True,
) -> Tally:
    """Feed ``sources`` to the server; what became of them."""
    from ragworks.feed import Feed, Tally, batches

    tally = Tally(total=len(sources))

    def changed(note: str = "") -> None:
        stage = ", ".join(f"{count} {stage}" for stage, count in tally.stages.items() if count > 0)
        done = tally.done if wait else tally.accepted + len(tally.failed)
        # What the server has not been given, it cannot count in.
        rest = left(list(tally.latest.values())) if tally.accepted + len(tally.failed) >= tally.total else ""
        progress("ingesting", done, tally.total, note or ", ".join(filter(None, (stage, rest))))

    async def send(items: Sequence[Source], key: str) -> Json | None:
        with ExitStack() as stack:
            opened = _opened(items, stack, tally)
            if not opened:
                return None
            return await client.submit_files(
                given.collection, opened, given.metadata, key, origin=items[0].origin, priority=given.priority
            )

    client.on_wait = lambda seconds, reason: changed(f"the server is busy, next try in {seconds:.0f} s")
    await client.ensure_collection(given.collection)
    # A submission has one origin.
    folders = groupby(sources, lambda one: one.origin)
    parts = (part for _, below in folders for part in batches(below, lambda one: one.size_bytes))
    await Feed(client, tally, send, lambda one: one.name, changed).run(parts, wait=wait)
    return tally


def _opened(items: Sequence[Source], stack: ExitStack, tally: Tally) -> list[tuple[str, IO[bytes]]]:
    from ragworks.feed import Failure

    opened: list[tuple[str, IO[bytes]]] = []
    for one in items:
        try:
            opened.append((one.name, stack.enter_context(one.path.open("rb"))))
        except OSError as error:
            tally.failed.append(Failure(one.name, "unreadable_file", error.strerror or str(error)))
    return opened


def summarised(
    collection: str, tally: Tally, skipped: Sequence[Skipped], waited: bool, seconds: float
) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "collection": collection,
        "jobs": tally.jobs,
        "waited": waited,
        "file_counts": {
            "total": tally.total,
            "accepted": tally.accepted,
            "completed": tally.completed,
            "unchanged": tally.unchanged,
            "failed": len(tally.failed),
            "cancelled": tally.cancelled,
        },
        "failed": [asdict(one) for one in tally.failed],
        "warnings": tally.warnings,
        "skipped": [asdict(one) for one in skipped],
        "seconds": round(seconds, 3),
    }


def show(summary: Mapping[str, Any]) -> None:
    """The summary in words, then what failed and why."""
    counts = summary["file_counts"]
    if summary["waited"]:
        cancelled = f", {counts['cancelled']} cancelled" if counts["cancelled"] else ""
        print(
            f"{counts['completed']} of {counts['total']} documents are in collection {summary['collection']!r} "
            f"({counts['unchanged']} unchanged, {counts['failed']} failed{cancelled}), {summary['seconds']:.1f} s"
        )
    else:
        print(f"{counts['accepted']} of {counts['total']} documents accepted; `ragworks jobs` shows how far they are")
    if summary["failed"]:
        rows = [(one["name"], one["stage"], one["code"], one["message"]) for one in summary["failed"]]
        table(("failed", "stage", "code", "message"), rows)
    for name, warnings in summary["warnings"].items():
        say(f"warning: {name}: {'; '.join(warnings)}")
    for one in summary["skipped"]:
        say(f"skipped: {one['path']}: {one['reason']}")


def parsed_metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value that is a JSON number, true, false or null is that, all else is text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"must be KEY=VALUE, found {pair!r}", param_hint="--metadata")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list | str) else value
