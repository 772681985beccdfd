"""``ragworks simulate scale``: load before the scaling policies, on a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragworks.cli.options import AsJson
from ragworks.cli.output import emit, table
from ragworks.cli.simulating_balance import chosen
from ragworks.errors import InvalidInput

if TYPE_CHECKING:
    from ragworks.policies.scaling import ScaleSpec
    from ragworks.simulator.demand import Demand
    from ragworks.simulator.scaling import Result

COLUMNS = ("policy", "wait>1s %", "p99 wait s", "worst s", "replica-hours", "actions", "reversals", "peak")

UNITS = {"h": 3600.0, "d": 86400.0}

FIELDS = ("policy", "wait_over_1s_share", "replica_hours_ratio", "actions", "peak_replicas")

FIXED = {"monitoring_interval": "--interval-s", "startup_s": "--startup-s"}
"""Settings that the simulated replicas and the policy have in common."""

MAX_INSTANCES = 100
"""So that it is the policy that decides, unless the user bounds it."""


def scale(
    trace: Annotated[Path, typer.Option(metavar="FILE", help="CSV: t,in,out of requests, or t,req_per_s of rates")],
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With rates: CSV t,in,out to draw token counts from")
    ] = None,
    cv: Annotated[
        float, typer.Option(metavar="X", help="With rates: coefficient of variation of the times between requests")
    ] = 1.5,
    window: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="This part of the trace only, in its seconds; 6h and 1d are understood"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="With rates: of the requests that are drawn")] = 0,
    policies: Annotated[str, typer.Option(metavar="NAMES", help="all, or some of them with commas between")] = "all",
    slots: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that a replica works on at once")] = 4,
    startup_s: Annotated[float, typer.Option(min=0, metavar="S", help="From a decision to a ready replica")] = 30.0,
    interval_s: Annotated[float, typer.Option(min=1, metavar="S", help="From one decision to the next")] = 15.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the scaler, as target.utilisation=0.7; again for more"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask scaling policies about recorded load, and say who waited and what it cost.

    One queue, first come first served; a request takes 0.05 s + 0.0002 s x tokens in + 0.02 s x tokens out. Requests
    drawn from rates keep 3 replicas busy on average. A policy is first asked after two minutes. Replica-hours are
    relative to a plan that knows all requests and lets none wait, so a policy that lets some wait can cost less than 1.
    """
    from ragworks.simulator.scaling import Setting, oracle, simulate

    _finite(cv=cv, startup_s=startup_s, interval_s=interval_s)
    specs = _specs(policies, settings or [], startup_s, interval_s)
    setting = Setting(slots, startup_s, interval_s)
    demand = _demand(trace, tokens, cv, window_of(window), seed, slots)
    ideal = oracle(demand, setting)
    found = [simulate(spec, demand, setting, ideal) for spec in specs]
    if as_json:
        emit([{field: getattr(one, field) for field in FIELDS} for one in found])
        return
    rows = [*map(_cells, found), ("oracle", "0.00", "0.0", "0", "1.00", ideal.actions, "", ideal.peak)]
    table(COLUMNS, rows, title=f"{len(demand.t)} requests in {demand.length_s:.0f} s, {ideal.mean:.2f} replicas needed")


def _cells(one: Result) -> tuple[object, ...]:
    return (
        one.policy,
        f"{100 * one.wait_over_1s_share:.2f}",
        f"{one.p99_wait_s:.1f}",
        f"{one.worst_wait_s:.0f}",
        f"{one.replica_hours_ratio:.2f}",
        one.actions,
        one.reversals,
        one.peak_replicas,
    )


def _specs(policies: str, settings: list[str], startup_s: float, interval_s: float) -> list[ScaleSpec]:
    from ragworks.policies.scaling import POLICIES, ScaleSpec
    from ragworks.policies.scaling_settings import changed, check

    spec = ScaleSpec(max_instances=MAX_INSTANCES, monitoring_interval=interval_s, startup_s=startup_s)
    for one in settings:
        name, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected NAME=VALUE, found {one!r}", param_hint="--set")
        if name in FIXED:
            raise typer.BadParameter(f"{name} is the option {FIXED[name]} here", param_hint="--set")
        spec = changed(spec, name, value)
    specs = [replace(spec, policy=name) for name in chosen(policies, POLICIES, "policy")]
    for each in specs:
        check(each)
    return specs


def _demand(
    trace: Path, tokens: Path | None, cv: float, window: tuple[float, float] | None, seed: int, slots: int
) -> Demand:
    from ragworks.simulator.demand import drawn, recorded
    from ragworks.simulator.traces import Requests, read

    found = read(trace)
    if isinstance(found, Requests):
        if tokens is not None:
            raise InvalidInput(f"{trace} holds requests with their tokens; leave out --tokens")
        return recorded(found, window)
    if tokens is None:
        raise InvalidInput(f"{trace} holds rates; give --tokens FILE with requests (t,in,out) to draw from")
    counts = read(tokens)
    if not isinstance(counts, Requests):
        raise InvalidInput(f"{tokens} holds rates; --tokens wants requests (t,in,out)")
    return drawn(found, counts, slots=slots, cv=cv, seed=seed, window=window)


def window_of(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    begin, _, end = text.partition(":")
    try:
        window = _seconds(begin), _seconds(end)
    except ValueError:
        window = (0.0, 0.0)
    if not 0 <= window[0] < window[1] < float("inf"):
        raise typer.BadParameter(
            f"expected START:END with START before END, as 712800:741600 or 198h:206h; found {text!r}",
            param_hint="--window",
        )
    return window


def _seconds(text: str) -> float:
    unit = UNITS.get(text[-1:])
    return float(text) if unit is None else float(text[:-1]) * unit


def _finite(**given: float) -> None:
    for name, value in given.items():
        if not isfinite(value) or (name == "cv" and value <= 0):
            allowed = "a number above 0" if name == "cv" else "a number"
            raise typer.BadParameter(f"must be {allowed}, found {value}", param_hint=f"--{name.replace('_', '-')}")
