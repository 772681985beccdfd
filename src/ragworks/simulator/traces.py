"""Readers of recorded traffic: requests (``t,in,out``: seconds, tokens, tokens) and rates (``t,req_per_s``)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import InvalidInput

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Arrivals in seconds, in order, and the tokens of each; all of shape (n,), float64."""

    t: Seconds
    tokens_in: NDArray[np.float64]
    tokens_out: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second at the given seconds, in order; both of shape (n,), float64."""

    t: Seconds
    per_s: NDArray[np.float64]


def read(path: Path) -> Requests | Rates:
    """The trace in a CSV file with a header. Raises InvalidInput that names the line and what was expected."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            columns = [name.strip() for name in lines.fieldnames or ()]
            wanted = next(
                (kind for kind in (("t", "in", "out"), ("t", "req_per_s")) if set(kind) <= set(columns)), None
            )
            if wanted is None:
                raise InvalidInput(f"{path}: expected the columns t,in,out or t,req_per_s, found {','.join(columns)}")
            lines.fieldnames = columns
            rows = np.array(list(_numbers(path, lines, wanted)), dtype=np.float64).reshape(-1, len(wanted))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read as a trace: {error}") from error
    if not len(rows):
        raise InvalidInput(f"{path} holds no rows")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return Requests(rows[:, 0], rows[:, 1], rows[:, 2]) if len(wanted) == 3 else Rates(rows[:, 0], rows[:, 1])


def _numbers(path: Path, lines: csv.DictReader[str], wanted: tuple[str, ...]) -> Iterator[list[float]]:
    for row in lines:
        try:
            numbers = [float(row[column]) for column in wanted]
        except (TypeError, ValueError):
            numbers = [math.nan]
        if not all(math.isfinite(one) and one >= 0 for one in numbers):
            found = ",".join(str(row[column]) for column in wanted)
            raise InvalidInput(f"{path}, line {lines.line_num}: expected {','.join(wanted)} as numbers, found {found}")
        yield numbers
