"""Tidy the text of formats whose layout is ours to read: repeated page lines, broken words, stray characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ftfy import fix_encoding
from ftfy.badness import is_bad

from ragworks.text.assemble import Piece, assemble, pieces_of
from ragworks.text.parse_markdown import plain
from ragworks.types import Parsed

_UNTOUCHED = frozenset({"text/plain", "text/markdown", "application/json", "application/jsonl"})
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff\ufeff\u200b\u2060]")
_ODD_BREAKS = re.compile("\r\n?|[\x85\u2028\u2029]")
_ODD_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000\t]")
_SOFT_HYPHEN = re.compile("\u00ad[ \t]*\n?[ \t]*")
# Only between lower-case letters: "self-\nMade" and "2019-\n2020" keep their hyphen.
_BROKEN_WORD = re.compile(r"(?<=[^\W\d_])-[ \t]*\n[ \t]*(?=[^\W\d_])")
# Typographic forms that no question is written in.
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "Ĳ": "IJ", "ĳ": "ij"}
)
_LEADERS = re.compile(r"(?:\. ?){4,}")
_SPACES = re.compile(r"(?<=\S) {2,}")
_LINE_ENDS = re.compile(r" +$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_NUMBER = re.compile(r"\d{1,5}")
_ENDS = {"at the start": re.compile(r"^\d{1,5}(?= )"), "at the end": re.compile(r"(?<= )\d{1,5}$")}
_EDGE_LINES = 2
# Left and right pages of a book repeat different lines, so each is on a little less than half of the pages.
_REPEATED_SHARE = 0.4
_LONGEST_REPEATED = 120


def clean(parsed: Parsed) -> Parsed:
    """The same document with tidy text and sections that fit it; plain text, Markdown and JSON come back untouched."""
    if parsed.media_type in _UNTOUCHED:
        return parsed
    pieces = _without_repeated_lines([replace(piece, text=tidy(piece)) for piece in pieces_of(parsed)])
    cleaned = assemble(
        pieces,
        parsed.media_type,
        title=parsed.title,
        pages=parsed.pages,
        properties=parsed.properties,
        warnings=parsed.warnings,
    )
    # A document that is nothing but its running title still has that text.
    return cleaned if cleaned.text else parsed


def tidy(piece: Piece) -> str:
    """The piece's text without stray characters, decoded again where it was misread; the layout of code stays."""
    text = _CONTROLS.sub("", _ODD_BREAKS.sub("\n", _repaired(piece.text).translate(_LIGATURES)))
    if piece.kind == "code":
        return text
    text = _LEADERS.sub(" … ", _ODD_SPACES.sub(" ", _SOFT_HYPHEN.sub("", text)))
    if piece.kind == "prose":
        text = _BROKEN_WORD.sub(_hyphen, text)
    return _BLANK_LINES.sub("\n\n", _LINE_ENDS.sub("", _SPACES.sub(" ", text)))


def _repaired(text: str) -> str:
    """``GrÃ¶ÃŸe`` as ``Größe``, line by line: one text may hold what several programs wrote."""
    if text.isascii() or not is_bad(text):
        return text
    return "".join(fix_encoding(line) if is_bad(line) else line for line in text.splitlines(keepends=True))


def _hyphen(found: re.Match[str]) -> str:
    before, after = found.string[found.start() - 1], found.string[found.end()]
    return "" if before.islower() and after.islower() else "-"


def _without_repeated_lines(pieces: list[Piece]) -> Iterable[Piece]:
    repeated = _repeated(pieces)
    if not repeated:
        return pieces
    kept: list[Piece] = []
    titles: set[str] = set()  # repeated lines that a parser took for headings
    for piece in pieces:
        lines = piece.text.split("\n") if piece.kind == "prose" else []
        gone = {line for line in lines if _shapes(line, piece.page or 0) & repeated}
        titles |= {plain(line.lstrip("# ")) for line in gone if line.startswith("#")}
        text = "\n".join(line for line in lines if line not in gone) if gone else piece.text
        kept.append(replace(piece, text=text))
    return [replace(piece, headings=tuple(one for one in piece.headings if one not in titles)) for piece in kept]


def _repeated(pieces: list[Piece]) -> set[str]:
    """The shapes of lines at the top or bottom of many pages."""
    pages: dict[int, list[str]] = {}
    for piece in pieces:
        if piece.page is not None and piece.kind == "prose":
            pages.setdefault(piece.page, []).extend(line for line in piece.text.split("\n") if line.strip())
    if len(pages) < 3:
        return set()
    seen: Counter[str] = Counter()
    for page, lines in pages.items():
        edges = lines[:_EDGE_LINES] + lines[-_EDGE_LINES:]
        seen.update({shape for line in edges if len(line) < _LONGEST_REPEATED for shape in _shapes(line, page)})
    return {shape for shape, count in seen.items() if count >= 3 and count > _REPEATED_SHARE * len(pages)}


def _shapes(line: str, page: int) -> set[str]:
    """The line, and what is the same on every page when its first or last number counts the pages.

    A number that stands alone at either end and counts the pages is a shape by itself: beside it the running title may
    be that of a chapter, and change.
    """
    text = " ".join(line.strip("#*_| ").split())
    numbers = list(_NUMBER.finditer(text))
    relative = {
        f"{text[: number.start()]}<{int(number.group()) - page}>{text[number.end() :]}"
        for number in (numbers[:1] + numbers[-1:])
    }
    ends = {f"{place}<{int(found.group()) - page}>" for place, end in _ENDS.items() if (found := end.search(text))}
    return {text} | relative | ends if text else set()
