"""JSON and JSON lines to sections that begin at records and members; the text stays exactly as it came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder

from ragworks.text.decode import decode
from ragworks.text.parse_markdown import trimmed
from ragworks.types import Parsed, Section

JSON = "application/json"
JSON_LINES = "application/jsonl"
_LARGE = 2000
"""Characters of a value beyond which it is cut at its own members: what is shorter fits a passage or two."""

_DEEPEST = 6
_LINE = re.compile(r"[^\n]+")
_SPACE = re.compile(r"[ \t\r\n]*")
_TITLES = ("title", "name", "headline", "subject")
Mark = tuple[int, tuple[str, ...]]


# Objects are walked for where they end, not for what they hold, and numbers may have any length.
_decode = JSONDecoder(
    object_pairs_hook=lambda _: None, parse_int=lambda _: 0, parse_float=lambda _: 0.0, strict=False
).raw_decode


def parse_json(data: bytes) -> Parsed:
    """The same text, cut at records; if it is neither JSON nor JSON lines it is plain text, with a warning."""
    text = decode(data)
    try:
        walk = _Walk(text)
        marks = list(walk.marks())
        return Parsed(text, tuple(_sections(text, marks)), JSON, walk.title)
    except (JSONDecodeError, RecursionError) as error:
        lines = _lines(text)
        if lines is not None:
            return Parsed(text, tuple(_sections(text, lines)), JSON_LINES)
        warning = f"the document is named or looks like JSON but is none ({error}); it is read as plain text"
        return Parsed(text, (Section(*trimmed(text, 0, len(text))),), "text/plain", warnings=(warning,))


class _Walk:
    """Where the records and members of a text begin, each with the path of names that leads to it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.title: str | None = None

    def marks(self) -> Iterator[Mark]:
        start = self._skip(0)
        end = self._end(start)
        if self._skip(end) != len(self._text):
            raise JSONDecodeError("Extra data", self._text, end)
        yield start, ()
        yield from self._inside(start, (), _DEEPEST)

    def _inside(self, start: int, path: tuple[str, ...], deeper: int) -> Iterator[Mark]:
        """The marks inside the value at ``start``, which is known to be valid."""
        opening = self._text[start]
        at = self._skip(start + 1)
        while opening in "{[" and self._text[at] not in "}]":
            begin, inner = at, path
            if opening == "{":
                name, at = _decode(self._text, at)
                at = self._skip(self._skip(at) + 1)
                inner = (*path, name) if name.strip() else path
                self._look_for_title(name, at, path)
            end = self._end(at)
            if end - at > _LARGE and deeper and self._text[at] in "{[":
                yield begin, inner
                yield from self._inside(at, inner, deeper - 1)
            else:
                yield begin, path
            at = self._skip(end)
            if self._text[at] == ",":
                at = self._skip(at + 1)

    def _look_for_title(self, name: str, at: int, path: tuple[str, ...]) -> None:
        if self.title is None and not path and name.lower() in _TITLES and self._text[at] == '"':
            self.title = _decode(self._text, at)[0]

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _end(self, at: int) -> int:
        return _decode(self._text, at)[1]


def _lines(text: str) -> list[Mark] | None:
    """A mark for every line, if all of them are JSON; there are two at least."""
    marks: list[Mark] = []
    try:
        for found in _LINE.finditer(text):
            start, end = trimmed(text, *found.span())
            if start < end:
                if _decode(text, start)[1] != end:
                    return None
                marks.append((start, ()))
    except (JSONDecodeError, RecursionError):
        return None
    return marks if len(marks) > 1 else None


def _sections(text: str, marks: list[Mark]) -> Iterator[Section]:
    """From each mark to the next; what stands between belongs to the record before."""
    ends = [at for at, _ in marks[1:]] + [len(text)]
    for (at, path), end in zip(marks, ends, strict=True):
        start, end = trimmed(text, at, end)
        if start < end:
            yield Section(start, end, path, None, "code")
