"""Sections to chunks within a token budget; every offset points back into the parsed text.

First neighbouring sections that belong together are joined, then what is too long is cut: between paragraphs if that
is enough, else between list items or rows, sentences, lines, words, and at last inside a word.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ragworks.text.parse_markdown import trimmed
from ragworks.text.tokens import Tokenize
from ragworks.types import Chunk, Parsed, Section

Span = tuple[int, int]

# A model may take a word of any length for one token (WordPiece: unknown), so letters count too. No running text needs
# 16 code points per token; English needs 4.
_CODE_POINTS_PER_TOKEN = 16
# What stands before the text may take this share of the budget, the text keeps the rest.
_PREFIX_SHARE = 3
# A title is embedded with every passage; beyond this it is no title, and would crowd out small budgets.
_LONGEST_TITLE = 120
# A section below this share of the budget says too little alone and takes in the next.
_SMALL_SHARE = 4
# Below this share it is a heading or a line that leads in, and stays with what follows even if that must be cut.
_TINY_SHARE = 8
# So many code points are cut at a time: their token spans take some 40 MB, however long the document is.
_WINDOW = 256 * 1024

_PARAGRAPHS = re.compile(r"\n[ \t\r]*\n\s*")
_ITEMS = re.compile(r"\n(?=[ \t]*(?:[-*+•]|\d+[.)])[ \t])")
_SENTENCES = re.compile("(?<=[.!?…])[\"'\u201d\u2019)\\]]*\\s+|(?<=[\u3002\uff01\uff1f])")
_LINES = re.compile(r"\n")
_WORDS = re.compile(r"\s+")
_CUTS = {
    "prose": (_PARAGRAPHS, _ITEMS, _SENTENCES, _LINES, _WORDS),
    "table": (_LINES, _SENTENCES, _WORDS),
    "code": (_PARAGRAPHS, _LINES, _WORDS),
}


def chunk(parsed: Parsed, title: str, tokens: Tokenize, budget: int) -> Iterator[Chunk]:
    """Passages, as they are cut, of at most ``budget`` tokens each, what is embedded before them included.

    Only where a title takes more than two thirds of a small budget does the text keep a third and go beyond it.
    In order, without overlap; together they hold every character of every section that is not whitespace. None crosses
    a page.
    """
    ordinal = 0
    for window in _windows(parsed):
        cutter = _Cutter(parsed.text, window, title, tokens, budget)
        for group in _groups(window.sections, cutter):
            for start, end, headings, prefix in cutter.passages(group):
                yield Chunk(ordinal, start, end, parsed.text[start:end], headings, group[0].page, prefix)
                ordinal += 1


def embed_text(chunk: Chunk, title: str) -> str:
    """What the embedding model sees of a chunk: title, heading path, table header, text."""
    return "\n".join(part for part in (title[:_LONGEST_TITLE], chunk.prefix, chunk.text) if part)


@dataclass(slots=True)
class _Ruler:
    """Counts tokens of any span of one text, which is tokenised once."""

    starts: list[int]
    ends: list[int]

    @classmethod
    def over(cls, text: str, tokens: Tokenize, at: int = 0) -> _Ruler:
        """``text`` begins at code point ``at`` of what is measured."""
        spans = tokens(text)
        return cls([at + start for start, _ in spans], [at + end for _, end in spans])

    def cost(self, start: int, end: int) -> int:
        count = bisect_left(self.starts, end) - bisect_right(self.ends, start)
        return max(count, -(-(end - start) // _CODE_POINTS_PER_TOKEN))

    def reach(self, start: int, budget: int) -> int:
        """The furthest end of a span from ``start`` that costs at most ``budget``."""
        last = bisect_right(self.ends, start) + budget
        furthest = start + budget * _CODE_POINTS_PER_TOKEN
        return min(self.starts[last], furthest) if last < len(self.starts) else furthest


@dataclass(slots=True)
class _Window:
    """Sections that are cut together. ``headers`` are the header rows of tables that began in an earlier window, by
    where their sections start in this one."""

    sections: list[Section]
    headers: dict[int, str]


def _windows(parsed: Parsed) -> Iterator[_Window]:
    window, first = _Window([], {}), 0
    for section, header in _bounded(parsed):
        if window.sections and section.end - first > _WINDOW:
            yield window
            window = _Window([], {})
        if not window.sections:
            first = section.start
        if header:
            window.headers[section.start] = header
        window.sections.append(section)
    if window.sections:
        yield window


def _bounded(parsed: Parsed) -> Iterator[tuple[Section, str]]:
    """Every section, cut to a window's length, with the header rows of the table that it continues, if it does."""
    for section in parsed.sections:
        start, header = section.start, ""
        while section.end - start > _WINDOW:
            end = _break(parsed.text, start, start + _WINDOW)
            yield replace(section, start=start, end=end), header
            if section.kind == "table" and not header:
                header = "\n".join(parsed.text[start:end].split("\n", 2)[:2])
            start = end
        yield replace(section, start=start), header


def _break(text: str, start: int, limit: int) -> int:
    """The last good place to cut before ``limit``: after a paragraph, a line or a word."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, start + _WINDOW // 2, limit)
        if at >= 0:
            return at + len(mark)
    return limit


class _Cutter:
    def __init__(self, text: str, window: _Window, title: str, tokens: Tokenize, budget: int) -> None:
        self.text = text
        self.budget = budget
        self._headers = window.headers
        first, last = window.sections[0].start, window.sections[-1].end
        self._ruler = _Ruler.over(text[first:last], tokens, first)
        self._title = title[:_LONGEST_TITLE]
        self._tokens = tokens
        self._rooms: dict[str, int] = {}

    def cost(self, start: int, end: int) -> int:
        return self._ruler.cost(start, end)

    def room(self, prefix: str) -> int:
        """The tokens that title and prefix leave for the text."""
        if prefix not in self._rooms:
            before = f"{self._title}\n{prefix}"
            taken = _Ruler.over(before, self._tokens).cost(0, len(before))
            self._rooms[prefix] = max(self.budget // _PREFIX_SHARE, self.budget - taken, 1)
        return self._rooms[prefix]

    def path(self, headings: tuple[str, ...]) -> str:
        """The heading path in one line, cut from the left to its share of the budget; without the title again."""
        names = list(headings[1:] if headings[:1] == (self._title,) else headings)
        while names and self.room(line := " > ".join(names)) < self.budget - self.budget // _PREFIX_SHARE:
            if len(names) == 1:
                return self._shortened(line)
            names.pop(0)
        return " > ".join(names)

    def _shortened(self, line: str) -> str:
        allowed = self.budget // _PREFIX_SHARE - (self.budget - self.room(""))
        return line[: _Ruler.over(line, self._tokens).reach(0, allowed)] if allowed > 0 else ""

    def passages(self, group: list[Section]) -> Iterator[tuple[int, int, tuple[str, ...], str]]:
        """(start, end, headings, prefix) of the chunks of one group."""
        headings = _shared(group)
        prefix = self.path(headings)
        start, end = trimmed(self.text, group[0].start, group[-1].end)
        if group[-1].start not in self._headers and self.cost(start, end) <= self.room(prefix):
            yield start, end, headings, prefix
            return
        yield from self._cut(group)

    def _cut(self, group: list[Section]) -> Iterator[tuple[int, int, tuple[str, ...], str]]:
        """The passages of a section that is too long, and of the tiny ones that lead to it."""
        long = group[-1]
        path = self.path(long.headings)
        header = self._table_header(long, path)
        room = self.room(header or path)
        pieces = [
            piece
            for section in group
            for piece in self._pieces((section.start, section.end), room, _CUTS[section.kind])
        ]
        for first, last in self._packed(pieces, room):
            # What begins before the table's second line holds the header itself.
            holds = first <= long.start and long.start not in self._headers
            yield first, last, long.headings, path if holds else header or path

    def _table_header(self, section: Section, path: str) -> str:
        """Path and header rows, for the later passages of a table; nothing when it is none, or takes too much room."""
        if section.kind != "table":
            return ""
        rows = self.text[section.start : section.end].split("\n", 2)
        names = self._headers.get(section.start) or ("\n".join(rows[:2]) if len(rows) > 2 else "")
        header = "\n".join(part for part in (path, names) if part)
        enough = self.budget - 2 * (self.budget // _PREFIX_SHARE)
        return header if names and self.room(header) >= enough else ""

    def _pieces(self, span: Span, room: int, cuts: tuple[re.Pattern[str], ...]) -> Iterator[Span]:
        """Trimmed spans of at most ``room`` tokens that together hold all of ``span``."""
        start, end = trimmed(self.text, *span)
        if start >= end:
            return
        if self.cost(start, end) <= room:
            yield start, end
        elif not cuts:
            yield from self._hard(start, end, room)
        else:
            at = start
            for found in cuts[0].finditer(self.text, start, end):
                yield from self._pieces((at, found.end()), room, cuts[1:])
                at = found.end()
            yield from self._pieces((at, end), room, cuts[1:])

    def _hard(self, start: int, end: int, room: int) -> Iterator[Span]:
        while start < end:
            stop = min(end, max(self._ruler.reach(start, room), start + 1))
            yield start, stop
            start = stop

    def _packed(self, pieces: list[Span], room: int) -> Iterator[Span]:
        """Neighbouring pieces put together: as few passages as the room allows, and of similar length."""
        if not pieces:
            return
        start, end = pieces[0][0], pieces[-1][1]
        passages = -(-self.cost(start, end) // room)
        aim = -(-self.cost(start, end) // passages)
        first, last = pieces[0]
        for piece in pieces[1:]:
            if self.cost(first, piece[1]) > room or self.cost(first, last) >= aim:
                yield first, last
                first = piece[0]
            last = piece[1]
        yield first, last


def _groups(sections: list[Section], cutter: _Cutter) -> Iterator[list[Section]]:
    """Runs of sections that make one chunk; one that is too long for that ends its run."""
    group: list[Section] = []
    for run in _runs(sections, cutter):
        if group and not _joins(group, run, cutter):
            yield group
            group = []
        group += run
    if group:
        yield group


def _runs(sections: list[Section], cutter: _Cutter) -> Iterator[list[Section]]:
    """What stands under one heading on one page, as far as it fits together: prose, its table, prose again."""
    run: list[Section] = []
    for section in sections:
        if cutter.text[section.start : section.end].isspace():
            continue
        same = bool(run) and (run[-1].page, run[-1].headings) == (section.page, section.headings)
        if run and not (same and _fits(run, [section], cutter)):
            yield run
            run = []
        run.append(section)
    if run:
        yield run


def _joins(group: list[Section], run: list[Section], cutter: _Cutter) -> bool:
    """Whether a small group takes in the next run: on the same page, below a heading that both share."""
    if group[-1].page != run[0].page or not _shared([*group, *run]):
        return False
    small = cutter.cost(group[0].start, group[-1].end) < cutter.budget // _SMALL_SHARE
    return small and _fits(group, run, cutter)


def _fits(group: list[Section], run: list[Section], cutter: _Cutter) -> bool:
    """Whether both make one chunk, or the first is so short that it belongs to the second however long that is."""
    tiny = cutter.cost(group[0].start, group[-1].end) <= cutter.budget // _TINY_SHARE
    room = cutter.room(cutter.path(_shared([*group, *run])))
    return tiny or cutter.cost(group[0].start, run[-1].end) <= room


def _shared(group: list[Section]) -> tuple[str, ...]:
    """The heading path that all sections of the group have in common."""
    shared = group[0].headings
    for section in group[1:]:
        length = 0
        for ours, theirs in zip(shared, section.headings, strict=False):
            if ours != theirs:
                break
            length += 1
        shared = shared[:length]
    return shared
