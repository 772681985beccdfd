"""``ragworks insights``: how the questions of the last days went, and which setting to change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from ragworks.cli.explaining import clock_time, moment
from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import Grid, emit, harmless, one_line, show

BARS = "▁▂▃▄▅▆▇█"
FEW, WIDTH = 5, 60

Found = Mapping[str, Any]
Since = Annotated[str, typer.Option(metavar="TIME", help="From when on: 12h, 7d, or 2026-11-24T12:00 (local time)")]


def insights(
    since: Since = "7d", data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Show what was asked, how it went, a health score with its parts, and which settings to change on what evidence.

    Without a server, the data folder is opened; what only a running server knows is then undecided.
    """
    found = run(_asked(Place(data, url, config), moment(since, time.time())))
    if as_json:
        emit(found)
    else:
        show([*_parts(found, since)])


async def _asked(place: Place, since: float) -> dict[str, Any]:
    from ragworks.client import connect
    from ragworks.logs import configure

    # Of a folder that nobody serves, only the store is needed: no model is loaded.
    settings = place.settings(log={"level": "error"}, server={"services": ("vector_store",)})
    configure(settings.log)
    async with connect(settings.server.data, place.url, settings) as client:
        return await client.insights(since)


def _parts(found: Found, since: str) -> Iterator[str | Grid]:
    yield _headline(found, since)
    if found["questions"]:
        yield from _volumes(found)
    yield from ("", _health(found["health"]))
    yield from _documents(found["documents"])
    yield from _texts("not answered", found["unanswered"], "question")
    yield from _texts("comments", found["comments"], "comment")
    yield from _advice(found)


def _headline(found: Found, since: str) -> str:
    if not found["questions"]:
        off = found["query_log"] == "off"
        why = "query_log.mode is off, so none are kept" if off else "ask some, or look further back with --since"
        return harmless(f"no questions since {since}: {why}")
    outcomes = ", ".join(f"{count} {name}" for name, count in found["outcomes"].items())
    cache, ratings = found["cache"], found["feedback"]
    told = [f"{found['questions']} questions since {since}: {outcomes}"]
    if cache["hit_rate"] is not None:
        told.append(f"cached {cache['hit_rate']:.0%} of {cache['lookups']}")
    if ratings:
        told.append("rated " + ", ".join(f"{count} {name}" for name, count in ratings.items()))
    return harmless("; ".join(told))


def _volumes(found: Found) -> Iterator[str | Grid]:
    counts = [one["questions"] for one in found["periods"]][-WIDTH:]
    most, unit = max(counts), "hour" if found["period_s"] < 86_400 else "day"
    bars = "".join(BARS[round(count / most * (len(BARS) - 1))] if count else " " for count in counts)
    yield f"{bars}  by the {unit}, {most} at most, from {clock_time(found['periods'][-len(counts) :][0]['start'])}"
    steps = [(one["step"], one["count"], _ms(one["p50_s"]), _ms(one["p95_s"])) for one in found["latency"]]
    yield from ("", Grid(("step", "questions", "p50", "p95"), steps))
    if len(found["collections"]) > 1:
        yield from ("", Grid(("collection", "questions"), list(found["collections"].items())[:FEW]))
    if found["errors"]:
        yield from ("", Grid(("error", "questions"), list(found["errors"].items())[:FEW]))


def _health(health: Found) -> Grid:
    score = "not enough data" if health["score"] is None else f"{health['score']} of 100"
    partly = "" if health["score"] is None or health["known"] == 1 else f", of {health['known']:.0%} of its parts"
    rows = [(one["name"], f"{one['weight']:.0%}", _share(one["value"]), one["why"]) for one in health["parts"]]
    return Grid(("part", "weight", "value", "why"), rows, f"health: {score}{partly}")


def _documents(documents: Found) -> Iterator[str | Grid]:
    used = [(one["document_id"], one["collection"], one["found"], one["cited"]) for one in documents["most_used"]]
    if used:
        yield from ("", Grid(("most used", "collection", "found", "cited"), used[:FEW]))
    if documents["never_used_count"]:
        names = ", ".join(one["document_id"] for one in documents["never_used"][:FEW])
        more = ", …" if documents["never_used_count"] > FEW else ""
        yield from ("", harmless(f"never used: {documents['never_used_count']} documents ({names}{more})"))
    if documents["failed"]:
        yield from ("", Grid(("failed with", "documents"), list(documents["failed"].items())[:FEW]))


def _texts(title: str, questions: Sequence[Found], field: str) -> Iterator[str | Grid]:
    if not questions:
        return
    rows = [
        (clock_time(one["at"]), one["kind"], one["outcome"], one_line(one[field] or f"({field} not kept)", WIDTH))
        for one in questions[:FEW]
    ]
    yield from ("", Grid(("time", "kind", "outcome", title), rows))


def _advice(found: Found) -> Iterator[str | Grid]:
    yield ""
    if not found["recommendations"]:
        yield "nothing to recommend"
    for one in found["recommendations"]:
        yield harmless(f"change {one['setting']}: {one['advice']}")
        yield harmless(f"  because {one['evidence']}")
    for one in found["undecided"]:
        yield harmless(f"undecided: {one['setting']}: {one['evidence']}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
