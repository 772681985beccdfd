"""Splits a text into sentences with exact spans; headings, list items and table rows are units of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

MAX_CHARS = 600
"""Longer units (text without punctuation, a flattened table) are cut at white space: nobody reads such a quote."""

_LINE = re.compile(r"[^\n]+")
_HEADING_OR_ROW = re.compile(r"\s*(?:#{1,6}\s|\|)")
_LIST_ITEM = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_END = re.compile(r"[.!?…]+[\"'\u201d\u2019»)\]*_]*(?=\s)|[。\uff01\uff1f]+[」』\u201d\uff09]*")
_LAST_WORD = re.compile(r"[\w.&-]*\Z")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")
_ABBREVIATED = """
    dr mr mrs ms prof st sr jr rev hon gen col lt sgt capt gov sen rep vs cf viz approx ca ed eds dept est inc ltd co
    corp bros mt ft resp al ph.d bzw z.b d.h
"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_NUMBERED = """
    no nos nr fig figs eq eqs sec ch vol pp art abb bd jan feb mar apr jun jul aug sep sept oct nov dec
"""
_BEFORE_NUMBERS = frozenset(_NUMBERED.split())


def sentences(text: str) -> list[Span]:
    """(start, end) of each sentence in order, without surrounding white space.

    Spans do not overlap, and every character outside them is white space.
    """
    return [piece for block in _blocks(text) for span in _split(text, *block) for piece in _cut(text, *span)]


def _blocks(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, where sentences may begin to end, end): paragraphs, and lines that stand alone."""
    start = body = end = -1
    for line in _LINE.finditer(text):
        alone = _HEADING_OR_ROW.match(line[0])
        item = _LIST_ITEM.match(line[0])
        gap = start >= 0 and text.count("\n", end, line.start()) > 1
        if start >= 0 and (alone or item or gap or not line[0].strip()):
            yield start, body, end
            start = -1
        if alone:
            yield line.start(), line.end(), line.end()
        elif line[0].strip():
            if start < 0:
                start, body = line.start(), line.start() + (item.end() if item else 0)
            end = line.end()
    if start >= 0:
        yield start, body, end


def _split(text: str, start: int, body: int, end: int) -> Iterator[Span]:
    for match in _END.finditer(text, body, end):
        if _ends_sentence(text, match, start, end):
            yield start, match.end()
            start = match.end()
    yield start, end


def _ends_sentence(text: str, match: re.Match[str], start: int, end: int) -> bool:
    rest = text[match.end() : min(end, match.end() + 40)].lstrip()
    if not rest:
        return False
    if rest[0].islower():
        return False
    if not match[0].startswith(".") or match[0].startswith(".."):
        return True
    word = _LAST_WORD.search(text, max(start, match.start() - 20), match.start())
    last = word[0] if word else ""
    if rest[0].isdigit() and last.lower() in _BEFORE_NUMBERS:
        return False
    return last.lower() not in _ABBREVIATIONS and not _INITIALS.match(last)


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    """The trimmed span, in pieces of at most MAX_CHARS."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > MAX_CHARS:
        limit = start + MAX_CHARS
        at = max(text.rfind("\n", start + 1, limit), text.rfind(" ", start + 1, limit))
        cut = at if at > start else limit
        yield from _cut(text, start, cut)
        start = cut
        while text[start].isspace():
            start += 1
    if start < end:
        yield start, end
