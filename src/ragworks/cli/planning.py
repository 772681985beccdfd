"""``ragworks plan``: replicas for a load and a latency goal."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from ragworks.cli.failing import FAILED
from ragworks.cli.options import AsJson
from ragworks.cli.output import emit, say, table


def plan(
    profile: Annotated[
        Path, typer.Option(metavar="FILE", help='JSON: {"SERVICE": {"service_s": [0.2, ...], "slots", "memory_bytes"}}')
    ],
    rate: Annotated[float, typer.Option(metavar="X", help="Requests a second")],
    p95: Annotated[float, typer.Option(metavar="S", help="95 % of them are answered within so many seconds")],
    cv: Annotated[
        float, typer.Option(metavar="X", help="Coefficient of variation of the times between requests")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the requests that are simulated")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how many replicas of each service a load needs, their memory, and what latency to expect.

    The profile holds measured seconds of work of single calls, without any wait, for each service in the order in which
    a request goes through them. Exit code 1 if no number of replicas reaches the goal.
    """
    from ragworks.simulator.planner import Goal, read_profiles
    from ragworks.simulator.planner import plan as planned

    for name, value in (("rate", rate), ("p95", p95), ("cv", cv)):
        if not isfinite(value) or value <= 0:
            raise typer.BadParameter(f"must be a number above 0, found {value}", param_hint=f"--{name}")
    found = planned(read_profiles(profile), Goal(rate, p95, cv), seed)
    if as_json:
        emit(asdict(found) | {"memory_bytes": found.memory_bytes})
    else:
        table(
            ("service", "replicas", "busy %", "p95 s", "memory MB", "calls measured"),
            [
                (
                    one.service,
                    one.replicas,
                    f"{100 * one.utilisation:.0f}",
                    f"{one.p95_s:.3f}",
                    f"{one.memory_bytes / 1e6:.0f}",
                    one.measured,
                )
                for one in found.services
            ],
        )
        print(
            f"expected p95 {found.p95_s:.3f} s; {found.low_s:.3f} to {found.high_s:.3f} in nine of ten drawings "
            "of the measured times"
        )
    if not found.met:
        say(f"the goal of {p95:g} s is not reached by more replicas: what is left is the work itself")
        raise typer.Exit(FAILED)
