"""The numbers that Word draws before paragraphs and does not store: counted as Word counts them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from docx.oxml.ns import qn

_PLACE = re.compile(r"%(\d)")
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a list: the format of its numbers, the text around them (``%1.%2``), where they start."""

    form: str = "bullet"
    text: str = ""
    start: int = 1


class Numbering:
    """The lists of a document, and how far each has been counted."""

    def __init__(self, document: Any) -> None:
        self._levels, self._abstract = _definitions(document)
        self._counts: dict[str, dict[int, int]] = {}

    def marker(self, number: str, level: int) -> str:
        """What stands before the next paragraph of this list: ``- `` for a bullet, ``2.1. ``, nothing for no mark."""
        levels = self._levels.get(number, {})
        own = levels.get(level, Level())
        if own.form == "bullet" or own.form == "none":
            return "- " if own.form == "bullet" else ""
        # Lists of one definition go on counting each other; a level that was skipped stands at its start.
        counts = self._counts.setdefault(self._abstract.get(number, number), {})
        for deeper in [key for key in counts if key > level]:
            del counts[deeper]
        for above in range(level):
            counts.setdefault(above, levels.get(above, Level()).start)
        counts[level] = counts[level] + 1 if level in counts else own.start
        drawn = _PLACE.sub(lambda found: _number(counts, levels, int(found.group(1)) - 1), own.text)
        return f"{drawn.strip()} " if drawn.strip() else ""


def _number(counts: dict[int, int], levels: dict[int, Level], level: int) -> str:
    return drawn(counts.get(level, 1), levels.get(level, Level("decimal")).form)


def drawn(number: int, form: str) -> str:
    """A number as a list's format draws it.

    >>> drawn(4, "upperRoman"), drawn(28, "lowerLetter"), drawn(7, "decimalZero")
    ('IV', 'bb', '07')
    """
    if form in ("lowerLetter", "upperLetter") and 0 < number < 1000:
        text = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
    elif form in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        text = _roman(number)
    else:
        return f"{number:02}" if form == "decimalZero" else str(number)
    return text.upper() if form.startswith("upper") else text


def _roman(number: int) -> str:
    text = ""
    for value, letters in _ROMAN:
        text += letters * (number // value)
        number %= value
    return text


def _definitions(document: Any) -> tuple[dict[str, dict[int, Level]], dict[str, str]]:
    """Levels of each list by its number, and the definition that it shares; both empty without lists."""
    try:
        numbering = document.part.numbering_part.element
    except (KeyError, NotImplementedError):
        return {}, {}
    defined = {item.get(qn("w:abstractNumId")): _levels(item) for item in numbering.iter(qn("w:abstractNum"))}
    levels: dict[str, dict[int, Level]] = {}
    abstract: dict[str, str] = {}
    for item in numbering.iter(qn("w:num")):
        number, name = str(item.get(qn("w:numId"))), str(_value(item, "w:abstractNumId"))
        overridden = _overridden(item, defined.get(name, {}))
        levels[number] = overridden or defined.get(name, {})
        # A list that restarts counts for itself.
        abstract[number] = f"{name}/{number}" if overridden else name
    return levels, abstract


def _levels(item: Any) -> dict[int, Level]:
    return {
        _whole(level.get(qn("w:ilvl")), 0): Level(
            _value(level, "w:numFmt") or "bullet",
            _value(level, "w:lvlText") or "",
            _whole(_value(level, "w:start"), 1),
        )
        for level in item.iter(qn("w:lvl"))
    }


def _overridden(item: Any, levels: dict[int, Level]) -> dict[int, Level]:
    """All levels as this list changes them; empty if it changes none."""
    changed = _levels(item)
    for override in item.iter(qn("w:lvlOverride")):
        at, start = _whole(override.get(qn("w:ilvl")), 0), _value(override, "w:startOverride")
        if start is not None:
            level = changed.get(at, levels.get(at, Level()))
            changed[at] = Level(level.form, level.text, _whole(start, 1))
    return {**levels, **changed} if changed else {}


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 9 else otherwise


def _value(element: Any, name: str) -> str | None:
    found = element.find(qn(name))
    value = found.get(qn("w:val")) if found is not None else None
    return str(value) if value is not None else None
