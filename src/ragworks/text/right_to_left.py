"""Text of pages that are written from right to left, with what pdfium gets wrong mended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_RTL = re.compile(f"[{RIGHT_TO_LEFT}]")
_LETTER = re.compile(r"[^\W\d_]")
_LATE_LETTER = re.compile(r" ([\u064b-\u0652])([^\W\d_])")
_TOUCHING = re.compile(rf"(?<=[{RIGHT_TO_LEFT}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{RIGHT_TO_LEFT}])")


@dataclass(frozen=True, slots=True)
class Glyph:
    """One character as pdfium reports it, and where its glyph stands: left, bottom, right, top."""

    text: str
    box: tuple[float, float, float, float]


def is_right_to_left(text: str) -> bool:
    """Whether more than a quarter of the letters are written from right to left."""
    return len(_RTL.findall(text)) * 4 > len(_LETTER.findall(text))


def mended(glyphs: Sequence[Glyph]) -> str:
    """The text of the glyphs in the order of reading.

    pdfium turns whole lines around, and with them the letters of a ligature such as lam-alef, which share one glyph and
    so one box; a vowel mark comes before its letter, behind a space that is not on the page. A word of the other
    direction may touch its neighbour; it is set apart, so that it can be found.
    """
    spelled = [glyph.text for _, same in groupby(glyphs, key=_place) for glyph in reversed(list(same))]
    return _TOUCHING.sub(" ", _LATE_LETTER.sub(r"\2\1", "".join(spelled)))


def _place(glyph: Glyph) -> tuple[float, float, float, float] | int:
    """Equal for the letters of one glyph only: letters that are written from right to left in the same box."""
    return glyph.box if _RTL.match(glyph.text) and glyph.box[0] < glyph.box[2] else id(glyph)
