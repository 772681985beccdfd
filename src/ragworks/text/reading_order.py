"""Text regions of a page to its text: columns one after the other, regions of one line joined, paragraphs apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

# All lengths are in heights of a line. A column holds running text: its lines are this long in the middle, where the
# cells of a table are shorter, and there are at least so many of them.
_COLUMN_WIDTH, _COLUMN_LINES = 8, 3
_CROSSING_SHARE = 0.2  # of the regions may run across a gutter: titles, and figures that span the columns
_PARAGRAPH_GAP = 0.9


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of text and the box around it; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def height(self) -> float:
        return self.bottom - self.top


def page_text(regions: Sequence[Region]) -> str:
    """The text of a page in reading order: a line of it per line, a blank line between paragraphs."""
    if not regions:
        return ""
    height = median(region.height for region in regions) or 1.0
    lines = _ordered(list(regions), height)
    parts = [_joined(lines[0])]
    for above, line in pairwise(lines):
        gap = min(region.top for region in line) - max(region.bottom for region in above)
        # A negative gap is the way up to the next column.
        parts.append("\n\n" if gap > _PARAGRAPH_GAP * height or gap < -2 * height else "\n")
        parts.append(_joined(line))
    return "".join(parts)


def _joined(line: Sequence[Region]) -> str:
    return " ".join(region.text.strip() for region in line)


def _ordered(regions: list[Region], height: float) -> list[list[Region]]:
    gutter = _gutter(regions, height)
    if gutter is None:
        return _lines(regions)
    lines: list[list[Region]] = []
    block: list[Region] = []
    for region in [*sorted(regions, key=lambda one: one.top), None]:
        if region is not None and not region.left < gutter < region.right:
            block.append(region)
            continue
        # What runs across ends the columns above it.
        lines += _ordered([one for one in block if one.right <= gutter], height)
        lines += _ordered([one for one in block if one.right > gutter], height)
        lines += [[region]] if region else []
        block = []
    return lines


def _gutter(regions: Sequence[Region], height: float) -> float | None:
    """Where a vertical line parts two columns of running text, crossing the fewest regions; None without columns."""
    best: tuple[int, float] | None = None
    for x in sorted({region.right for region in regions})[:-1]:
        crossing = sum(region.left < x < region.right for region in regions)
        sides = [
            [region for region in regions if region.right <= x],
            [region for region in regions if region.right > x and region.left >= x],
        ]
        if crossing <= _CROSSING_SHARE * len(regions) and all(_is_column(side, height) for side in sides):
            best = min(best or (crossing, x), (crossing, x))
    return best[1] if best else None


def _is_column(regions: Sequence[Region], height: float) -> bool:
    return (
        len(regions) >= _COLUMN_LINES
        and median(region.right - region.left for region in regions) >= _COLUMN_WIDTH * height
    )


def _lines(regions: Sequence[Region]) -> list[list[Region]]:
    """Regions whose middles lie within one another's height, from left to right."""
    lines: list[list[Region]] = []
    for region in sorted(regions, key=lambda one: one.top + one.bottom):
        middle = (region.top + region.bottom) / 2
        if lines and lines[-1][0].top <= middle <= lines[-1][0].bottom:
            lines[-1].append(region)
        else:
            lines.append([region])
    return [sorted(line, key=lambda one: one.left) for line in lines]
