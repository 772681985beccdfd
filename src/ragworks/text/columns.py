"""Where a page has columns: the regions to read one after the other, from the boxes of its text alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

MIN_GUTTER = 8.0  # points; LaTeX sets 10 between columns, and no word space is that wide in running text
_MIN_SHARE = 0.2  # of the region's width, on each side of a gutter
_MAX_CROSSED = 0.5  # of the region's height may be crossed by headings, figures and tables that span the columns
_MIN_LINES = 4  # on each side; fewer are a heading with a number at its right, a signature, a letterhead
# Running text fills its column and has several words in a line; the cells of a table do not. Columns of short lines
# (an index, a list) are told from a table by the order in which the page was written.
_FILLED = 0.6
_WORDS_OF_PROSE, _WORDS_OF_LIST = 4, 2
_MIN_TORN = 12
_DEPTH = 3
_MAX_LENGTH = 14_400.0  # points, the largest page of a PDF; damaged files have text millions of points away
_MAX_RUNS = 5_000  # on a page; a drawing with more is no text in columns, and looking for them takes their square


class Box(Protocol):
    """A run of text on one line. Points from the top left corner of the page."""

    text: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the page."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, box: Box) -> bool:
        middle, centre = box.x + box.width / 2, box.y + box.height / 2
        return self.left <= middle <= self.right and self.top <= centre <= self.bottom


Place = Callable[[Box], int | None]
"""Where a run of text stands in the order in which the page was written; None if that is unknown."""


def regions(boxes: Sequence[Box], place: Place) -> list[Region]:
    """The page's regions in reading order: bands from the top down, columns from the left; at most one: no columns."""
    shown = [box for box in boxes if box.text.strip() and box.width > 0 and _on_paper(box)]
    return list(_split(shown, place, _DEPTH if len(shown) <= _MAX_RUNS else 0))


def mixed(found: Sequence[Region], boxes: Sequence[Box], place: Place) -> bool:
    """Whether a text goes back and forth between the regions; ``place`` is the place of a box in that text."""
    if len(found) < 2:
        return False
    placed = [(at, box) for box in boxes if (at := place(box)) is not None]
    homes = [_home(box, found) for _, box in sorted(placed, key=lambda one: one[0])]
    order = [home for home in homes if home is not None]
    return sum(later < earlier for earlier, later in pairwise(order)) > _tolerated(len(order))


def torn(boxes: Sequence[Box], written: Place, read: Place) -> bool:
    """Whether a text takes rows apart: the page was written from the top down, and most runs stand elsewhere in it.

    Ask where no columns were found. A list of prices without lines, its names and its prices apart, is such a text.
    """
    places = [(written(box), read(box), box) for box in boxes]
    both = [(at, there, box) for at, there, box in places if at is not None and there is not None]
    known = sorted(both, key=lambda one: one[0])
    if len(known) < _MIN_TORN:
        return False
    upward = sum(later[2].y + later[2].height < earlier[2].y for earlier, later in pairwise(known))
    order = sorted(range(len(known)), key=lambda index: known[index][1])
    jumps = sum(later != earlier + 1 for earlier, later in pairwise(order))
    return upward <= _tolerated(len(known)) and 2 * jumps > len(known)


def place_in(text: str) -> Place:
    """Where a run of text begins in ``text``, white space aside; unknown for what is there twice or not at all."""
    flat = " ".join(text.split())

    def place(box: Box) -> int | None:
        run = " ".join(box.text.split()).removesuffix("-")
        at = flat.find(run)
        return at if at >= 0 and flat.find(run, at + 1) < 0 else None

    return place


def _on_paper(box: Box) -> bool:
    return all(-_MAX_LENGTH < at < _MAX_LENGTH for at in (box.x, box.y, box.x + box.width, box.y + box.height))


def _home(box: Box, found: Sequence[Region]) -> int | None:
    return next((index for index, region in enumerate(found) if region.holds(box)), None)


def _tolerated(runs: int) -> int:
    """How many steps to the wrong side are no sign of mixing: running titles, and what was found in the wrong place."""
    return 1 + runs // 20


def _split(boxes: list[Box], place: Place, depth: int) -> Iterator[Region]:
    if not boxes:
        return
    bands = _best_bands(boxes, place) if depth else []
    if not bands:
        yield _around(boxes)
    for band in bands:
        for side in band:
            yield from _split(side, place, depth - 1 if len(band) > 1 else 0)


Band = tuple[list[Box], ...]
"""The boxes between two heights: of one full-width part, or of the columns on both sides of a gutter."""


def _best_bands(boxes: list[Box], place: Place) -> list[Band]:
    """The bands around the gutter with most text beside it; none where no gutter parts columns."""
    best: list[Band] = []
    most = 0
    for gutter in _gutters(boxes):
        bands = _bands(boxes, gutter, place)
        beside = sum(len(side) for band in bands if len(band) > 1 for side in band)
        if beside > most:
            best, most = bands, beside
    return best


def _gutters(boxes: list[Box]) -> Iterator[float]:
    """The middles of the vertical strips that least text crosses, one for each stretch that little text crosses."""
    whole = _around(boxes)
    covered = _covered(boxes, whole)
    limit, same = _MAX_CROSSED * (whole.bottom - whole.top), 0.01 * (whole.bottom - whole.top)
    for start, end in _runs([height <= limit for height in covered]):
        least = min(covered[start:end])
        emptiest = _runs([height <= least + same for height in covered[start:end]])
        first, last = max(emptiest, key=lambda run: run[1] - run[0])
        middle = start + (first + last) / 2
        if last - first >= MIN_GUTTER and _MIN_SHARE < middle / len(covered) < 1 - _MIN_SHARE:
            yield whole.left + middle


def _covered(boxes: list[Box], whole: Region) -> list[float]:
    """For each point across the page, the height of all text that stands there."""
    width = int(whole.right - whole.left) + 1
    steps = [0.0] * (width + 1)
    for box in boxes:
        steps[int(box.x - whole.left)] += box.height
        steps[min(width, int(box.x + box.width - whole.left) + 1)] -= box.height
    return list(accumulate(steps[:width]))


def _runs(marks: list[bool]) -> list[tuple[int, int]]:
    """The stretches that are marked, as [start, end)."""
    edges = [at for at, (before, after) in enumerate(pairwise([False, *marks, False])) if before != after]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _bands(boxes: list[Box], gutter: float, place: Place) -> list[Band]:
    across = [(box.y, box.y + box.height) for box in boxes if box.x < gutter < box.x + box.width]

    def spans(box: Box) -> bool:
        centre = box.y + box.height / 2
        return any(top <= centre <= bottom for top, bottom in across)

    bands: list[Band] = []
    run: list[Box] = []
    full: list[Box] = []
    for box in [*sorted(boxes, key=lambda box: box.y + box.height / 2), None]:
        if box is not None and not spans(box):
            run.append(box)
            continue
        sides = _sides(run, gutter, place)
        if sides:
            bands += [(full,), sides] if full else [sides]
            full = []
        else:
            full += run
        run = []
        if box is not None:
            full.append(box)
    return [*bands, (full,)] if full and bands else bands


def _sides(run: list[Box], gutter: float, place: Place) -> Band | None:
    """The run as two columns, if that is what it is."""
    left = [box for box in run if box.x < gutter]
    right = [box for box in run if box.x >= gutter]
    columns = (_lines(left), _lines(right))
    fewest = min(len(lines) for lines in columns)
    if fewest < _MIN_LINES:
        return None
    switches = _switches(left, right, place)
    by_column = switches is not None and switches <= 1 + _tolerated(len(run))
    # From one side to the other and back after some lines, but not after each: the cells of a table's rows.
    by_cell = switches is not None and not by_column and switches < 1.2 * fewest
    words = min(statistics.median(_words(line) for line in lines) for lines in columns)
    prose = words >= _WORDS_OF_PROSE and _filled(left, right, columns) >= _FILLED and not by_cell
    return (left, right) if prose or (by_column and words >= _WORDS_OF_LIST) else None


def _switches(left: list[Box], right: list[Box], place: Place) -> int | None:
    """How often the page's writer went from one side to the other; None if too little of the order is known."""
    written: list[tuple[int, int]] = []
    for side, boxes in enumerate((left, right)):
        known = [(at, box) for box in boxes if (at := place(box)) is not None]
        if 2 * sum(len(box.text) for _, box in known) < sum(len(box.text) for box in boxes):
            return None
        written += [(at, side) for at, _ in known]
    return sum(before[1] != after[1] for before, after in pairwise(sorted(written)))


def _lines(boxes: list[Box]) -> list[list[Box]]:
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.y + box.height / 2):
        if lines and box.y + box.height / 2 < lines[-1][0].y + lines[-1][0].height:
            lines[-1].append(box)
        else:
            lines.append([box])
    return lines


def _words(line: list[Box]) -> int:
    return sum(len(box.text.split()) for box in line)


def _filled(left: list[Box], right: list[Box], columns: tuple[list[list[Box]], ...]) -> float:
    """How much of the width to the next column, or of the last one's longest line, lines use; of the emptier side."""
    start = min(box.x for box in right)
    widths = (start - min(box.x for box in left), max(box.x + box.width for box in right) - start)
    inked = [statistics.median(sum(box.width for box in line) for line in lines) for lines in columns]
    return min(ink / max(width, 1.0) for ink, width in zip(inked, widths, strict=True))


def _around(boxes: list[Box]) -> Region:
    return Region(
        min(box.x for box in boxes),
        min(box.y for box in boxes),
        max(box.x + box.width for box in boxes),
        max(box.y + box.height for box in boxes),
    )
