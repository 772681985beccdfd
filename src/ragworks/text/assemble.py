"""Pieces of a document to one text, with the sections that point into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ragworks.types import Parsed, Section

Kind = Literal["prose", "table", "code"]
BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one section to be, and where it stands in the document."""

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    kind: Kind = "prose"


def assemble(
    pieces: Iterable[Piece],
    media_type: str,
    *,
    title: str | None = None,
    pages: int | None = None,
    properties: Mapping[str, Any] | None = None,
    warnings: tuple[str, ...] = (),
) -> Parsed:
    """One text of all pieces in order, a blank line between them; pieces of nothing but whitespace are left out."""
    texts: list[str] = []
    sections: list[Section] = []
    at = 0
    for piece in _joined(pieces):
        text = piece.text
        sections.append(Section(at, at + len(text), piece.headings, piece.page, piece.kind))
        texts.append(text)
        at += len(text) + len(BETWEEN)
    return Parsed(BETWEEN.join(texts), tuple(sections), media_type, title, pages, dict(properties or {}), warnings)


def pieces_of(parsed: Parsed) -> list[Piece]:
    """The pieces that ``assemble`` would make the same text of."""
    return [Piece(parsed.text[s.start : s.end], s.headings, s.page, s.kind) for s in parsed.sections]


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Stripped pieces; neighbouring prose in the same place becomes one, however finely a parser cut it."""
    run: list[Piece] = []
    for piece in pieces:
        text = piece.text.strip() if piece.kind == "prose" else piece.text.strip("\r\n")
        if not text.strip():
            continue
        stripped = Piece(text, piece.headings, piece.page, piece.kind)
        if run and _place(run[-1]) == _place(stripped) and piece.kind == "prose":
            run.append(stripped)
        else:
            yield from _one(run)
            run = [stripped]
    yield from _one(run)


def _one(run: list[Piece]) -> Iterator[Piece]:
    if run:
        yield Piece(BETWEEN.join(piece.text for piece in run), run[0].headings, run[0].page, run[0].kind)


def _place(piece: Piece) -> tuple[object, ...]:
    return piece.headings, piece.page, piece.kind
