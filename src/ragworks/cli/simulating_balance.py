"""``ragworks simulate balance``: requests through the balancing strategies, on a virtual clock."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ragworks.cli.options import AsJson
from ragworks.cli.output import emit, say, table
from ragworks.errors import InvalidInput

if TYPE_CHECKING:
    from ragworks.simulator.balancing import Row


COLUMNS = ("strategy", "mean s", "p50 s", "p95 s", "p99 s", "errors %", "mean ratio", "p99 ratio", "knows")


def balance(
    trace: Annotated[Path, typer.Option(metavar="FILE.csv", help="Recorded requests: t,in,out (seconds, tokens)")],
    profile: Annotated[
        Literal["generate", "embed"], typer.Option(help="What a request costs: tokens in and out, or tokens in alone")
    ] = "generate",
    rho: Annotated[float, typer.Option(metavar="SHARE", help="Load, as a share of what the replicas can do")] = 0.7,
    balancers: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Independent balancers, each of which sees its own calls")
    ] = 1,
    strategies: Annotated[str, typer.Option(metavar="NAME,…", help="Strategies to compare, or all")] = "all",
    case: Annotated[
        Literal["steady", "long", "blackhole", "flapping"],
        typer.Option(
            help="One replica slow for a while; the same after long running; one that fails fast; one that does so "
            "again and again"
        ),
    ] = "steady",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random choices")] = 0,
    ejecting: Annotated[
        bool, typer.Option("--ejecting/--no-ejecting", help="Leave outliers out, as the server does, or never")
    ] = True,
    sized: Annotated[
        bool, typer.Option("--sized/--unsized", help="Tell strategies the input tokens of a request, or nothing")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Send recorded requests through the balancing strategies, to six replicas of which one is always three times
    slower; seconds until the answers, beside an oracle that knows all sizes and speeds.

    The time between requests is stretched to give the load. docs/guides/balance.md says more.
    """
    from ragworks.policies.balancing import STRATEGIES
    from ragworks.policies.ejecting import EjectSettings
    from ragworks.simulator.balancing import compare, plan
    from ragworks.simulator.traces import Requests, read

    names = chosen(strategies, STRATEGIES, "strategy")
    requests = read(trace)
    if not isinstance(requests, Requests):
        raise InvalidInput(f"{trace} holds rates; balancing needs requests, with the columns t,in,out")
    settings = EjectSettings() if ejecting else EjectSettings(max_ejected_share=0.0)
    oracle, rows = compare(
        plan(requests, profile, rho, case),
        names,
        balancers=balancers,
        seed=seed,
        ejecting=settings,
        sized=sized,
        progress=lambda name: None if as_json else say(f"{name} …"),
    )
    if as_json:
        emit([row.as_json() for row in rows])
        return
    table(COLUMNS, [_cells(row) for row in (oracle, *rows)])


def chosen(given: str, known: Collection[str], kind: str) -> Sequence[str]:
    """The names in a list with commas, or all; BadParameter that names the nearest known one."""
    if given.strip() == "all":
        return tuple(known)
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter(f"no {kind} given; known are all, {', '.join(known)}")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise typer.BadParameter(f"unknown {kind} {name}; {hint}known are all, {', '.join(known)}")
    return names


def _cells(row: Row) -> list[str]:
    seconds = [f"{value:.3f}" for value in (row.mean_s, row.p50_s, row.p95_s, row.p99_s)]
    ratios = [f"{value:.2f}" for value in (row.mean_ratio, row.p99_ratio)]
    return [row.strategy, *seconds, f"{100 * row.error_rate:.2f}", *ratios, row.knows]
