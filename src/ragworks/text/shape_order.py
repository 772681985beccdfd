"""Boxes on a page in the order in which a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

_DEEPEST = 40


def in_reading_order(items: Iterable[Item], box_of: Callable[[Item], Box | None]) -> list[Item]:
    """Cut along empty bands across, read from top to bottom, else along empty bands down, from left to right.

    What has no box comes first, in the order given; boxes that overlap in both directions are read from the top.
    """
    placed: list[tuple[Box, Item]] = []
    unplaced: list[Item] = []
    for item in items:
        box = box_of(item)
        if box is None:
            unplaced.append(item)
        else:
            placed.append((box, item))
    return unplaced + [item for _, item in _read(placed, _DEEPEST)]


def _read(boxes: list[tuple[Box, Item]], deeper: int) -> list[tuple[Box, Item]]:
    for side in (1, 0):  # rows first
        runs = _runs(boxes, side)
        if len(runs) > 1 and deeper:
            return [box for run in runs for box in _read(run, deeper - 1)]
    return sorted(boxes, key=lambda pair: (pair[0][1], pair[0][0]))


def _runs(boxes: list[tuple[Box, Item]], side: int) -> list[list[tuple[Box, Item]]]:
    """Groups that do not overlap in one direction; a tenth of the smaller box is no overlap."""
    runs: list[list[tuple[Box, Item]]] = []
    end = 0
    for box, item in sorted(boxes, key=lambda pair: pair[0][side]):
        start, stop = box[side], box[side + 2]
        if runs and start < end - (stop - start) // 10:
            runs[-1].append((box, item))
            end = max(end, stop)
        else:
            runs.append([(box, item)])
            end = stop
    return runs
