"""How far to trust an estimate of a job's end: the interval that its own ended jobs give, whatever their distribution.

Split conformal: what the estimator got wrong before, as the ratio of actual to predicted seconds, it gets wrong again.
Where the order of jobs does not matter, the next ratio lies between the k-th smallest and the k-th largest of n with
probability 1 - 2k / (n + 1), so k is the largest whole number that keeps the level.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragworks.types import Interval

LEVEL = 0.8
SLACK_S = 0.1  # added to both times of a ratio: a tenth of a second says nothing of longer jobs
# Bounds that no ratio stands for yet: a new server's first ten jobs took 0.43 to 1.62 times as long as predicted where
# the priors were set (benchmarks/results/estimates-2026-11-24.json), and another machine may be a few times as fast or
# slow.
PRIOR = 4.0


def bracket(expected_s: float, forecasts: Sequence[tuple[float, float]], level: float = LEVEL) -> Interval:
    """Where the actual seconds lie with probability ``level``, given (predicted, actual) of ended jobs in any order.

    Too few of them for a bound: the prior, or the worst ratio seen if that is farther out. Holds ``expected_s`` always.
    """
    ratios = sorted(_ratio(*one) for one in forecasts)
    # Nine jobs for a level of 0.8, as (9 + 1) * 0.1 = 1; the small number undoes what 1 - 0.8 lacks of 0.2.
    tail = int((len(ratios) + 1) * (1 - level) / 2 + 1e-9)
    low, high = (ratios[tail - 1], ratios[-tail]) if tail else _widest(ratios)
    return Interval(
        max(0.0, min(expected_s, _scaled(expected_s, low))), max(expected_s, _scaled(expected_s, high)), level
    )


def coverage(forecasts: Sequence[tuple[float, float]], judged: int, level: float = LEVEL) -> float | None:
    """The share of the newest ``judged`` jobs that ended within the interval of those before them; None without any.

    ``forecasts`` are newest first; an interval is made of ``judged`` earlier jobs, or as many as there are.
    """
    held = []
    for at, (predicted, actual) in enumerate(forecasts[:judged]):
        interval = bracket(predicted, forecasts[at + 1 : at + 1 + judged], level)
        held.append(interval.low <= actual <= interval.high)
    return sum(held) / len(held) if held else None


def _ratio(predicted_s: float, actual_s: float) -> float:
    return (actual_s + SLACK_S) / (predicted_s + SLACK_S)


def _scaled(expected_s: float, ratio: float) -> float:
    return (expected_s + SLACK_S) * ratio - SLACK_S


def _widest(ratios: Sequence[float]) -> tuple[float, float]:
    return min(1 / PRIOR, *ratios, 1.0), max(PRIOR, *ratios, 1.0)
