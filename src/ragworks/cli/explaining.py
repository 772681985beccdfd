"""``ragworks why``: what the control plane decided, on what it saw, and whether it would again."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say, table

COLUMNS = ("time", "where", "action", "reason")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_NUMBERS = 5
# Moments on a clock that only the server knows, and what an operator set: neither is what decided.
NO_NUMBERS = re.compile(r"now|rng|until|settings|.*(_at|_since)")

Service = Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Only this service")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only since then: 10m, 2h, 3d, or 2026-11-24T12:00 (local time)")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How many at most, the newest of them")]


def why(
    service: Service = None,
    since: Since = None,
    limit: Limit = 50,
    replay: Annotated[bool, typer.Option("--replay", help="Ask each policy again; exit code 1 if one differs")] = False,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what was decided and why: starts, restarts, health, ejections, scaling, refusals. The newest come last.

    Without a server, the events of the data folder are read where they lie; nothing is started.
    """
    from ragworks.settings import known_service

    since_at = 0.0 if since is None else moment(since, time.time())
    wanted = None if service is None else known_service(service)
    found = run(_events(Place(data, url, config), service=wanted, since=since_at, limit=limit))
    verdicts = [_verdict(event) for event in found] if replay else []
    if as_json:
        emit(
            {
                "data": [
                    {**event, **({"replay": verdict} if replay else {})} for event, verdict in _paired(found, verdicts)
                ]
            }
        )
    elif not found:
        _say_empty(service, since)
    else:
        _print(found, verdicts)
    if any(one["same"] is False for one in verdicts):
        raise typer.Exit(FAILED)


async def _events(place: Place, **which: Any) -> list[dict[str, Any]]:
    from ragworks.client import kept_events, live_server

    settings = place.settings()
    if not (place.url or await live_server(settings.server.data)):
        return await kept_events(settings, **which)
    async with place.client() as client:
        return await client.events(**which)


def moment(text: str, now: float) -> float:
    """The seconds since the epoch that ``--since`` means."""
    if length := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", text.strip()):
        return max(0.0, now - float(length[1]) * UNITS_S[length[2]])
    try:
        return max(0.0, datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError, OSError):
        message = f"expected a length of time (90s, 10m, 2h, 3d) or a time like 2026-11-24T12:00, found {text!r}"
        raise typer.BadParameter(message, param_hint="--since") from None


def clock_time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def row(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """An event on one line: when, who, what, why."""
    times = f" x{event['count']:,}" if event["count"] > 1 else ""
    service, replica = event["service"], event["replica"] or ""
    # A replica is mostly called after its service, and a line is short.
    where = replica if replica.startswith(service) else f"{service} {replica}".strip()
    return clock_time(event["at"]), where, f"{event['action']}{times}", " ".join(event["reason"].split())


def numbers(event: Mapping[str, Any]) -> str:
    """The few numbers that were decided, and that decided."""
    found: dict[str, float] = {}
    for name, value in (*_numbers(event["decision"]), *_numbers(event["inputs"])):
        found.setdefault(name, value)
    return " ".join(f"{name}={_short(value)}" for name, value in list(found.items())[:MOST_NUMBERS])


def _numbers(data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    nested = []
    for name, value in data.items():
        if NO_NUMBERS.fullmatch(name):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            yield name, value
        elif isinstance(value, Mapping):
            nested.append(value)
    for one in nested:
        yield from _numbers(one)


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _verdict(event: Mapping[str, Any]) -> dict[str, Any]:
    from ragworks.policies.replaying import asked_again

    found = asked_again(event["policy"], event["inputs"], event["decision"])
    # What a policy decided and cannot decide again is no less of a difference.
    same = False if found.same is None and event["policy"] else found.same
    return {"same": same, "decision": found.decision, "reason": found.reason}


def _paired(found: Sequence[Any], verdicts: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(found, verdicts or [None] * len(found), strict=True)


def _print(found: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> None:
    columns = (*COLUMNS, "numbers", *(("again",) if verdicts else ()))
    rows = [
        (*row(event), numbers(event), *((_told(verdict),) if verdict else ()))
        for event, verdict in _paired(found, verdicts)
    ]
    table(columns, rows)
    if verdicts:
        counts = Counter(verdict["same"] for verdict in verdicts)
        say(f"asked again: {counts[True]} the same, {counts[False]} not, {counts[None]} happened without a policy")


def _told(verdict: Mapping[str, Any]) -> str:
    return str({True: "same", None: ""}.get(verdict["same"], verdict["reason"]))


def _say_empty(service: str | None, since: str | None) -> None:
    of = f" of {service}" if service else ""
    then = f" since {since}" if since else ""
    say(
        f"no events{of}{then}; starts, restarts, changes of health, ejections, scaling and refusals of requests "
        "appear here, each with its reason"
    )
