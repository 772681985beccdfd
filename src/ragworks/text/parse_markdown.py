"""Markdown to sections: headings, tables and fences are recognised, the text stays as it came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ragworks.text.assemble import Kind
from ragworks.types import Parsed, Section

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_RULE_ROW = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_NOT_A_TITLE = re.compile(r"[ \t]*(?:$|[-*+>|]|\d+[.)]|#|```|~~~|\t| {4})")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^()\n]*\)")
_MARKUP = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*\r?$", re.MULTILINE)
_FRONT_LIMIT = 10_000


class Headings:
    """The path of headings at one point of a document, as headings come by."""

    def __init__(self, path: tuple[str, ...] = ()) -> None:
        self._stack: list[tuple[int, str]] = [(level, name) for level, name in enumerate(path, start=1)]

    def enter(self, level: int, name: str) -> tuple[str, ...]:
        while self._stack and self._stack[-1][0] >= level:
            self._stack.pop()
        if name:
            self._stack.append((level, name))
        return self.path

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(name for _, name in self._stack)


def parse_markdown(text: str) -> Parsed:
    """The same text, with its sections and the title of its front matter."""
    front = front_matter(text)
    found = _FRONT_TITLE.search(text, 0, front)
    title = found.group(1).strip("\"' ") if found else None
    return Parsed(text, tuple(outline(text, front=front)), "text/markdown", title or None)


def front_matter(text: str) -> int:
    """Where the front matter ends; 0 without one."""
    found = _FRONT.match(text, 0, _FRONT_LIMIT)
    return found.end() if found else 0


def outline(text: str, headings: Headings | None = None, page: int | None = None, front: int = 0) -> Iterator[Section]:
    """The sections of a Markdown text, in order; whitespace between them belongs to none."""
    walk = _Walk(text, headings or Headings(), page)
    if front:
        walk.mark(0, "prose")
        walk.mark(front, "prose")
    lines = [(found.start(), found.group()) for found in _LINE.finditer(text, front)]
    for index in range(len(lines)):
        walk.line(lines, index)
    return walk.sections()


@dataclass(slots=True)
class _Walk:
    text: str
    headings: Headings
    page: int | None
    marks: list[tuple[int, tuple[str, ...], Kind]] = field(default_factory=list)
    fence: str = ""
    table_until: int = 0

    def mark(self, at: int, kind: Kind) -> None:
        self.marks.append((at, self.headings.path, kind))

    def line(self, lines: list[tuple[int, str]], index: int) -> None:
        at, line = lines[index]
        if not self.marks:
            self.mark(at, "prose")
        if index < self.table_until or self._in_fence(at, line):
            return
        if self.table_until and index == self.table_until:
            self.mark(at, "prose")
        following = lines[index + 1][1] if index + 1 < len(lines) else ""
        if "|" in line and "|" in following and _RULE_ROW.match(following.rstrip("\r\n")):
            self.mark(at, "table")
            self.table_until = _table_end(lines, index)
        else:
            self._heading(at, line.rstrip("\r\n"), following.rstrip("\r\n"), lines[index - 1][1] if index else "")

    def _in_fence(self, at: int, line: str) -> bool:
        found = _FENCE.match(line.rstrip("\r\n"))
        if self.fence:
            if found and found.group(1).startswith(self.fence) and not found.group(2).strip():
                self.fence = ""
                self.mark(at + len(line), "prose")
            return True
        if found and "`" not in found.group(2):
            self.fence = found.group(1)
            self.mark(at, "code")
        return bool(self.fence)

    def _heading(self, at: int, line: str, following: str, before: str) -> None:
        found = _ATX.match(line)
        if found:
            self.headings.enter(len(found.group(1)), plain(found.group(2) or ""))
            self.mark(at, "prose")
        elif not before.strip() and not _NOT_A_TITLE.match(line) and _UNDERLINE.match(following):
            self.headings.enter(1 if "=" in following else 2, plain(line))
            self.mark(at, "prose")

    def sections(self) -> Iterator[Section]:
        ends = [at for at, _, _ in self.marks[1:]] + [len(self.text)]
        for (at, path, kind), end in zip(self.marks, ends, strict=False):
            start, end = trimmed(self.text, at, end)
            if start < end:
                yield Section(start, end, path, self.page, kind)


def _table_end(lines: list[tuple[int, str]], index: int) -> int:
    end = index + 2
    while end < len(lines) and "|" in lines[end][1]:
        end += 1
    return end


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the whitespace at both of its ends."""
    piece = text[start:end]
    end = start + len(piece.rstrip())
    return min(end, start + len(piece) - len(piece.lstrip())), end


def plain(heading: str) -> str:
    """A heading without inline markup.

    >>> plain("**Set up** the [server](https://example.org)")
    'Set up the server'
    """
    text = _MARKUP.sub("", _LINK.sub(r"\1", heading)).replace("\\", "")
    return " ".join(text.split())
