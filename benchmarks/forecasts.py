"""Does any library foresee a load better than the last value or what ragworks does, and hold its interval?

Usage: python benchmarks/forecasts.py --requests FILE.csv ... [--rates FILE.csv --windows 198h:206h ... --seeds 1]
[--horizons 30 300 1800] [--peers augurs statsmodels] [--json]. From each trace the calls at once are averaged over a
minute, every 15 s, if none ever waited: what a scaler is shown. Every 15 s (peers: every 600 s, as they fit anew on the
last 240 values) each foresees the load after a horizon, with an interval of 90 %; all are judged on the same moments,
after the first 40 minutes. `error` is relative to the last value's on that trace, `covered` the share inside, `width`
the mean width and `winkler` its score (width, and 20 times by how far a load was outside), both in calls at once.
Milliseconds of CPU for one forecast are of this process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scaling import Case, cases

from ragworks.bench.machine import commit, machine
from ragworks.policies.forecasting import Forecast, ForecastSettings, foreseen, updated
from ragworks.simulator.demand import Demand, in_service

EVERY_S, WINDOW_S = 15.0, 60.0
WARM, HISTORY, PEERS_EVERY = 160, 240, 40
LEVEL = 0.9

Interval = tuple[float, float, float]  # expected, low, high
Peer = Callable[[np.ndarray, int], Interval]


@dataclass(frozen=True, slots=True)
class Row:
    forecaster: str
    error: float
    covered: float | None
    width: float | None
    winkler: float | None
    cpu_ms: float
    failed: int


def loads(demand: Demand) -> np.ndarray:
    """The mean number of calls at once over the minute that ends at each moment."""
    at, there = in_service(demand)
    passed = np.concatenate([[0.0], np.cumsum(there[:-1] * np.diff(at))])
    moments = np.arange(WINDOW_S, demand.length_s, EVERY_S)
    return (np.interp(moments, at, passed) - np.interp(moments - WINDOW_S, at, passed)) / WINDOW_S


def ours(values: np.ndarray, steps: int) -> Iterator[Interval]:
    """For each value, what is said after it."""
    settings, state = ForecastSettings(), Forecast()
    for number, value in enumerate(values):
        state = updated(settings, state, number * EVERY_S, float(value), steps * EVERY_S)
        seen = foreseen(settings, state, steps * EVERY_S)
        assert seen is not None
        yield seen.expected, seen.low, seen.high


def augurs(history: np.ndarray, steps: int) -> Interval:
    from augurs import MSTL

    # AutoETS by itself finds no model, in 0.8.0 from Python; behind a season of two values, the shortest, it does.
    model = MSTL.ets([2])
    model.fit(history)
    found = model.predict(steps, LEVEL)
    return float(found.point()[-1]), float(found.lower()[-1]), float(found.upper()[-1])


def statsmodels(history: np.ndarray, steps: int) -> Interval:
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    fitted = ETSModel(pd.Series(history), error="add", trend="add", damped_trend=True).fit(disp=False)
    found = fitted.get_prediction(start=len(history), end=len(history) + steps - 1)
    low, high = found.pred_int(alpha=1 - LEVEL).iloc[-1]
    return float(found.predicted_mean.iloc[-1]), float(low), float(high)


PEERS: dict[str, Peer] = {"augurs": augurs, "statsmodels": statsmodels}


def judged(case: Case, horizon_s: float, peers: list[str]) -> dict[str, object]:
    values, steps = loads(case.demand), round(horizon_s / EVERY_S)
    moments = range(WARM, len(values) - steps)
    sparse = list(moments)[::PEERS_EVERY]
    began = time.process_time()
    said = list(ours(values, steps))
    own_ms = 1000 * (time.process_time() - began) / len(values)
    rows = [row("ragworks, all moments", values, steps, dict(enumerate(said)), list(moments), own_ms)]
    rows.append(row("ragworks", values, steps, dict(enumerate(said)), sparse, own_ms))
    for name in peers:
        found: dict[int, Interval] = {}
        began = time.process_time()
        for moment in sparse:
            try:
                found[moment] = PEERS[name](values[max(0, moment + 1 - HISTORY) : moment + 1], steps)
            except Exception as error:  # whatever it is, it has no forecast, which is counted
                print(f"{name}: {error}", file=sys.stderr)
        spent = 1000 * (time.process_time() - began) / max(1, len(sparse))
        rows.append(row(name, values, steps, found, sparse, spent))
    return {
        "case": case.name,
        "horizon_s": horizon_s,
        "mean_load": float(values.mean()),
        "moments": len(moments),
        "last_value_error": float(np.mean([abs(values[at + steps] - values[at]) for at in moments])),
        "rows": [asdict(one) for one in rows],
    }


def row(name: str, values: np.ndarray, steps: int, said: dict[int, Interval], moments: list[int], cpu_ms: float) -> Row:
    """Where one has no forecast, the last value stands for it in the error, and nothing in the interval's figures."""
    came = np.array([values[at + steps] for at in moments])
    last = np.array([values[at] for at in moments])
    expected = np.array([said[at][0] if at in said else values[at] for at in moments])
    error = float(np.abs(expected - came).mean() / np.abs(last - came).mean())
    known = np.array([at in said for at in moments])
    if not known.any():
        return Row(name, error, None, None, None, cpu_ms, len(moments))
    bounds = np.array([said[at][1:] for at in moments if at in said])
    low, high, value = np.maximum(0.0, bounds[:, 0]), np.maximum(0.0, bounds[:, 1]), came[known]
    beyond = np.maximum(0.0, low - value) + np.maximum(0.0, value - high)
    return Row(
        name,
        error,
        float(np.mean(beyond == 0)),
        float(np.mean(high - low)),
        float(np.mean(high - low + 2 / (1 - LEVEL) * beyond)),
        cpu_ms,
        int(np.count_nonzero(~known)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=Path, nargs="+", required=True)
    parser.add_argument("--rates", type=Path)
    parser.add_argument("--windows", nargs="+", default=["198h:206h"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--horizons", type=float, nargs="+", default=[30.0, 300.0, 1800.0])
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of fits that did not converge; what they are worth is seen in their errors
    found = []
    for case in cases(given, {}):
        for horizon_s in given.horizons:
            if case.demand.length_s < 4 * horizon_s:
                continue  # an hour says nothing of half an hour ahead
            found.append(judged(case, horizon_s, given.peers))
            if not given.json:
                print(text(found[-1]), flush=True)
    if given.json:
        print(json.dumps({"commit": commit(), "machine": machine(), "cases": found}, indent=2))
    return 0


def text(found: dict[str, object]) -> str:
    lines = [
        f"\n{found['case']}, {found['horizon_s']:g} s ahead: {found['moments']} moments, load "
        f"{found['mean_load']:.1f}, the last value is off by {found['last_value_error']:.2f}"
    ]
    lines.append(
        f"  {'forecaster':24} {'error':>6} {'covered':>7} {'width':>7} {'winkler':>7} {'CPU ms':>8} {'failed':>6}"
    )
    for one in found["rows"]:  # type: ignore[attr-defined]
        numbers = [one["error"], one["covered"], one["width"], one["winkler"]]
        cells = [f"{'-' if number is None else format(number, '.3f'):>7}" for number in numbers]
        lines.append(f"  {one['forecaster']:24}{' '.join(cells)} {one['cpu_ms']:8.3f} {one['failed']:6}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
