"""``ragworks plan``: replicas for a load and a latency goal."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragworks.cli.failing import FAILED
from ragworks.cli.options import AsJson
from ragworks.cli.output import emit, say, table

if TYPE_CHECKING:
    from ragworks.simulator.planner import Plan
    from ragworks.simulator.profiles import Profile


def plan(
    profile: Annotated[Path, typer.Option(metavar="FILE", help="What `ragworks bench profile` measured")],
    rate: Annotated[float, typer.Option(metavar="X", help="Requests a second")],
    p95: Annotated[float, typer.Option(metavar="S", help="95 % of them are answered within so many seconds")],
    cv: Annotated[
        float, typer.Option(metavar="X", help="Coefficient of variation of the times between requests")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the requests that are simulated")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how many replicas of each service a load needs, their memory, and what latency to expect.

    From the times that `ragworks bench profile` measured. Exit code 1 if no number of replicas reaches the goal.
    """
    from ragworks.simulator.planner import Goal
    from ragworks.simulator.planner import plan as planned
    from ragworks.simulator.profiles import read

    for name, value in (("rate", rate), ("p95", p95), ("cv", cv)):
        if not isfinite(value) or value <= 0:
            raise typer.BadParameter(f"must be a number above 0, found {value}", param_hint=f"--{name}")
    measured = read(profile)
    found = planned(measured, Goal(rate, p95, cv), seed)
    if as_json:
        emit(asdict(found) | {"memory_bytes": found.memory_bytes, "source": asdict(measured.source)})
    else:
        _print(found, measured, rate)
    if not found.met:
        if found.p95_s is None:
            say(f"the load of {rate:g} a second is not answered by any number of replicas: {found.limit}")
        else:
            say(f"the goal of {p95:g} s is not reached by more replicas: what is left is the work itself")
        raise typer.Exit(FAILED)


def _print(found: Plan, measured: Profile, rate: float) -> None:
    source = measured.source
    print(f"from {measured.calls} calls of {source.kind} at {source.server}, {source.measured_at},")
    print(f"ragworks {source.version}, {source.machine}")
    table(
        ("service", "lives", "replicas", "work ms", "cores", "memory MB"),
        [
            (
                one.service,
                one.lives,
                one.replicas,
                f"{1e3 * one.work_s:.1f}",
                None if one.cores is None else f"{one.cores:.2f}",
                None if one.memory_bytes is None else f"{one.memory_bytes / 1e6:.0f}",
            )
            for one in found.services
        ],
    )
    busy = 100 * rate / found.capacity
    print(f"{rate:g} a second are {busy:.0f} % of {found.capacity:.1f}; what bounds it: {found.limit}")
    if found.p95_s is not None:
        print(
            f"expected p95 {found.p95_s:.3f} s; {found.low_s:.3f} to {found.high_s:.3f} in nine of ten drawings "
            "of what was measured"
        )
    for note in found.notes:
        print(note)
