"""Is any well-known rule better than the default scaling policy: fewer requests that wait, and fewer replica-hours?

Usage: python benchmarks/scaling.py --requests FILE.csv ... [--rates FILE.csv --windows 198h:206h ... --seeds 1 2 3]
[--published FILE.md] [--json]. Requests (`t,in,out`) are replayed as they came; from rates (`t,req_per_s`) requests are
drawn for each window and seed, with the token counts of the first FILE of --requests. Each rule is asked by the
simulator on the same measurements. --published names a file with tables of rows that others measured, each under a line
`**NAME.csv: ...**` or `**NAME.csv day D, hours A-B: ...**`, which is compared with seed 1. Rows on the front have a
star: none has both fewer waits and fewer replica-hours. Exit code 1 if the default is not on the front of any table, or
acts more than 50 times in eight hours of drawn requests.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scaling_peers import PEERS, fixed

from ragworks.bench.machine import commit
from ragworks.cli.simulating_scale import MAX_INSTANCES, window_of
from ragworks.policies.scaling import POLICIES, ScaleSpec
from ragworks.simulator.demand import Demand, drawn, recorded
from ragworks.simulator.scaling import Oracle, Setting, oracle, simulate
from ragworks.simulator.traces import Rates, Requests, read

SETTING = Setting()
DEFAULT = ScaleSpec().policy
MOST_ACTIONS, IN_S = 50, 8 * 3600.0
CV = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """``source``: ours, simulated (a peer's rule in our simulator), or published."""

    policy: str
    source: str
    late_percent: float
    replica_hours: float
    actions: int

    def beats(self, other: Row) -> bool:
        return self.late_percent < other.late_percent and self.replica_hours < other.replica_hours


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    demand: Demand
    published: tuple[Row, ...]
    drawn: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=Path, nargs="+", required=True)
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--windows", nargs="+", default=["198h:206h"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--published", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tables = dict(published(given.published.read_text())) if given.published else {}
    found = []
    for case in cases(given, tables):
        found.append(judged(case))
        if not given.json:
            print(text(found[-1]), flush=True)
    if given.json:
        print(json.dumps({"commit": commit(), "cases": found}, indent=2))
    return 0 if all(one["holds"] for one in found) else 1


def cases(given: argparse.Namespace, tables: dict[str, tuple[Row, ...]]) -> Iterator[Case]:
    requests = {path: _requests(path) for path in given.requests}
    for path, trace in requests.items():
        yield Case(path.name, recorded(trace), tables.get(path.name, ()), False)
    if given.rates is None:
        return
    rates = read(given.rates)
    if not isinstance(rates, Rates):
        raise SystemExit(f"{given.rates} holds requests; --rates wants t,req_per_s")
    tokens = requests[given.requests[0]]
    for window in given.windows:
        for seed in given.seeds:
            begin, end = window_of(window) or (0.0, 0.0)
            demand = drawn(rates, tokens, slots=SETTING.slots, cv=CV, seed=seed, window=(begin, end))
            day, hour = divmod(begin / 3600, 24)
            known = f"{given.rates.name} day {day:.0f}, hours {hour:.0f}-{hour + (end - begin) / 3600:.0f}"
            yield Case(f"{known}, seed {seed}", demand, tables.get(known, ()) if seed == 1 else (), True)


def _requests(path: Path) -> Requests:
    found = read(path)
    if not isinstance(found, Requests):
        raise SystemExit(f"{path} holds rates; --requests wants t,in,out")
    return found


def published(text: str) -> Iterator[tuple[str, tuple[Row, ...]]]:
    """The tables of a Markdown file, each by what its title says before the colon."""
    for part in re.split(r"^\*\*", text, flags=re.MULTILINE)[1:]:
        title, _, table = part.partition("**")
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", table, re.M)]
        if not lines or not {"wait>1 s %", "replica-hours / oracle", "actions"} <= set(lines[0]):
            continue
        cells = (dict(zip(lines[0], line, strict=True)) for line in lines[2:] if len(line) == len(lines[0]))
        yield (
            title.partition(":")[0].strip(),
            tuple(
                Row(
                    cell["policy"],
                    "published",
                    float(cell["wait>1 s %"]),
                    float(cell["replica-hours / oracle"]),
                    int(cell["actions"]),
                )
                for cell in cells
                if not cell["policy"].startswith("oracle")
            ),
        )


def judged(case: Case) -> dict[str, object]:
    seen = oracle(case.demand, SETTING)
    rows = [*ours(case.demand, seen), *peers(case.demand, seen), *case.published]
    default = next(row for row in rows if row.policy == DEFAULT)
    better = [row for row in rows if row.beats(default)]
    allowed = MOST_ACTIONS * case.demand.length_s / IN_S if case.drawn else float("inf")
    rows.sort(key=lambda row: (row.replica_hours, row.late_percent))
    return {
        "case": case.name,
        "requests": len(case.demand.t),
        "oracle": asdict(seen),
        "rows": [asdict(row) | {"front": not any(one.beats(row) for one in rows)} for row in rows],
        "better_than_default": [f"{row.policy} ({row.source})" for row in better],
        "holds": not better and default.actions <= allowed,
    }


def ours(demand: Demand, seen: Oracle) -> Iterator[Row]:
    spec = ScaleSpec(max_instances=MAX_INSTANCES, monitoring_interval=SETTING.interval_s, startup_s=SETTING.startup_s)
    for name in POLICIES:
        found = simulate(replace(spec, policy=name), demand, SETTING, seen)
        yield Row(name, "ours", 100 * found.wait_over_1s_share, found.replica_hours_ratio, found.actions)


def peers(demand: Demand, seen: Oracle) -> Iterator[Row]:
    spec = ScaleSpec(max_instances=MAX_INSTANCES)
    mean, peak = round(seen.mean), seen.peak
    for name, make in {
        f"fixed at {mean}": lambda: fixed(mean),
        f"fixed at {peak}": lambda: fixed(peak),
        **PEERS,
    }.items():
        found = simulate(spec, demand, SETTING, seen, make())
        yield Row(name, "simulated", 100 * found.wait_over_1s_share, found.replica_hours_ratio, found.actions)


def text(found: dict[str, object]) -> str:
    lines = [f"\n{found['case']}: {found['requests']} requests"]
    lines.append(f"  {'policy':58} {'source':9} {'wait>1s %':>9} {'hours':>6} {'actions':>7}")
    for row in found["rows"]:  # type: ignore[attr-defined]
        star = "*" if row["front"] else " "
        lines.append(
            f"{star} {row['policy']:58} {row['source']:9} {row['late_percent']:9.2f} {row['replica_hours']:6.2f} "
            f"{row['actions']:7}"
        )
    better = ", ".join(found["better_than_default"])  # type: ignore[call-overload]
    lines.append("  goal met" if found["holds"] else f"  GOAL NOT MET: {better or 'too many actions'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
