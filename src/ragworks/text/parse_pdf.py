"""PDF to sections with page numbers: structure from one reader, checked word for word against another."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument, NoTextLayer
from ragworks.text import ocr
from ragworks.text.assemble import Piece, assemble
from ragworks.text.parse_markdown import Headings, outline
from ragworks.text.pdf_layout import marked_pages
from ragworks.text.right_to_left import Glyph, is_right_to_left, mended
from ragworks.types import Parsed

MAX_PAGES = 20_000
_MAX_OUTLINE, _MAX_OUTLINE_DEPTH = 100_000, 50
_MAX_SIDE = 14_400.0  # points, the largest page that the format allows
_MAX_WARNINGS = 20
_WORDS = re.compile(r"[^\W_]+")
_SOFT_HYPHEN = re.compile("[\ufffe\u00ad](?:[ \t]*\r?\n)?")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-[ \t]*\r?\n[ \t]*(?=[^\W\d_])")
_HALVES = re.compile(r"\b([^\W\d_]+)- ([^\W\d_]+)")
_EMPHASIS = re.compile(r"(?<!\\)(\*{1,3})(?=\S)((?:[^*\n]|\\\*)+?)(?<=\S)(?<!\\)\1")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!<>~$-])")
_RULE = re.compile(r"^[ \t]*(?:-{3,}|`{3}\w*\n\s*`{3})[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^(?:#{1,6} )?[•▪●◦‣] *", re.MULTILINE)
# A symbol font's bullet that no table translates: a control or a private character, alone between spaces.
_SYMBOL = re.compile(r"(?:^|(?<=\s))[\x80-\x9f\uf000-\uf0ff][ \t]+", re.MULTILINE)
_LETTER = re.compile(r"[^\W\d_]")
# Words that one reader has and the other has not. Beyond this share the page was misread: 0.1 is where the two agreed
# on all but formulas and lost columns in the pages we compared by eye. Repeated words do not count against a page,
# because a table whose headers span columns repeats them.
_DISAGREEMENT = 0.1


def parse_pdf(data: bytes) -> Parsed:
    """Every page's text in order; a page that cannot be read becomes a warning.

    Raises EncryptedDocument, CorruptDocument, DocumentTooLarge, or NoTextLayer when no page holds text.
    """
    document = _opened(data)
    try:
        plain, warnings = _plain_pages(document)
        hazard = _hazard(document)
        plain, unread = ocr.recognised_pages(document, plain)
        metadata = document.get_metadata_dict(skip_empty=True)
    finally:
        document.close()
    if not any(_LETTER.search(text) or _WORDS.search(text) for text in plain):
        raise NoTextLayer(
            f"the PDF has {_count(len(plain))} but "
            + ("no text layer, and text recognition found no text either" if ocr.available() else ocr.ADVICE)
        )
    marked, more = marked_pages(data, plain) if not hazard else ([""] * len(plain), [hazard])
    return assemble(
        _pieces(plain, marked),
        "application/pdf",
        title=metadata.get("Title"),
        pages=len(plain),
        properties=_properties(metadata),
        warnings=_few(warnings + unread + more),
    )


def _opened(data: bytes) -> Any:
    try:
        document = pypdfium2.PdfDocument(data)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise EncryptedDocument("the PDF needs a password; remove it and submit the file again") from error
        raise CorruptDocument(f"the PDF is broken and cannot be opened: {error}") from error
    if not 0 < pages <= MAX_PAGES:
        document.close()
        raise (
            CorruptDocument("the PDF has no pages")
            if pages < 1
            else DocumentTooLarge(f"the PDF has {pages} pages, at most {MAX_PAGES} are read; split it")
        )
    return document


def _plain_pages(document: Any) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    warnings: list[str] = []
    for number in range(1, len(document) + 1):
        try:
            page = document[number - 1]
            texts.append(_plain_text(page))
            page.close()
        except pypdfium2.PdfiumError as error:
            texts.append("")
            warnings.append(f"page {number}: cannot be read: {error}")
    _part_spreads(document, texts)
    return texts, warnings


def _hazard(document: Any) -> str | None:
    """Why the layout must not be read: the reader of layouts would take its process with it."""
    if not _has_sound_outline(document):  # it follows the outline by recursion
        return "the outline loops or is too deep: plain text was taken, without layout"
    for number in range(len(document)):
        with suppress(pypdfium2.PdfiumError):  # a page that is not there is no hazard
            if max(document.get_page_size(number)) > _MAX_SIDE:  # it took a gigabyte for a page of 10^9 points
                return f"page {number + 1} is larger than any paper: plain text was taken, without layout"
    return None


def _has_sound_outline(document: Any) -> bool:
    """Whether following the outline ends, in no more steps and no deeper than outlines that somebody made."""
    seen: set[int] = set()
    stack: list[tuple[Any, int]] = [(None, 0)]
    while stack:
        parent, depth = stack.pop()
        entry = pdfium.FPDFBookmark_GetFirstChild(document, parent)
        while entry:
            address = ctypes.addressof(entry.contents)
            if address in seen or len(seen) >= _MAX_OUTLINE or depth > _MAX_OUTLINE_DEPTH:
                return False
            seen.add(address)
            stack.append((entry, depth + 1))
            entry = pdfium.FPDFBookmark_GetNextSibling(document, entry)
    return True


def _part_spreads(document: Any, texts: list[str]) -> None:
    """Leave each of two pages that draw the same spread, and show a half of it, the half that it shows."""
    for number, (left, right) in enumerate(pairwise(texts)):
        if left.strip() and left == right:
            shown = [_plain_text(document[at], within_page=True) for at in (number, number + 1)]
            if sum(len("".join(half.split())) for half in shown) >= len("".join(left.split())):
                texts[number : number + 2] = shown


def _plain_text(page: Any, within_page: bool = False) -> str:
    # What lies beyond the page's box is text too, half of one file we met, unless it is another page's.
    textpage = page.get_textpage()
    try:
        text = str(textpage.get_text_bounded() if within_page else textpage.get_text_range())
        if is_right_to_left(text):
            text = mended([_glyph(textpage, index) for index in range(textpage.count_chars())])
        return _SOFT_HYPHEN.sub("", text).replace("\r\n", "\n")
    finally:
        textpage.close()


def _glyph(textpage: Any, index: int) -> Glyph:
    return Glyph(str(textpage.get_text_range(index, 1)), textpage.get_charbox(index))


def _pieces(plain: list[str], marked: list[str]) -> Iterator[Piece]:
    headings = Headings()
    tidied = _without_running_titles([_tidied(markdown) for markdown in marked])
    for number, (text, tidy) in enumerate(zip(plain, tidied, strict=True), start=1):
        if _reads_well(marked[number - 1], text):
            tidy = _rejoined(tidy, text)
            for section in outline(tidy, headings, number):
                yield Piece(tidy[section.start : section.end], section.headings, number, section.kind)
        else:
            yield from _plain_pieces(text, _heading_levels(tidy), headings, number)


def _without_running_titles(pages: list[str]) -> list[str]:
    """With running titles as lines and not as headings: they are another heading, and the page's number beside it."""
    named = {_words(line) for page in pages for line in page.split("\n") if line.startswith("#")}

    def is_title(words: tuple[str, ...]) -> bool:
        ends = ((words[0], words[1:]), (words[-1], words[:-1])) if len(words) > 1 else ()
        return any(number.isdecimal() and rest in named for number, rest in ends)

    return [
        "\n".join(line.lstrip("# ") if line.startswith("#") and is_title(_words(line)) else line for line in lines)
        for lines in (page.split("\n") for page in pages)
    ]


def _heading_levels(tidy: str) -> dict[tuple[str, ...], int]:
    """The words of each heading of the page, and its level."""
    lines = [line for line in tidy.split("\n") if line.startswith("#")]
    return {words: len(line) - len(line.lstrip("#")) for line in lines if (words := _words(line))}


def _plain_pieces(text: str, levels: dict[tuple[str, ...], int], headings: Headings, number: int) -> Iterator[Piece]:
    """The plain text of a page, cut at the lines that its layout knows as headings."""
    run: list[str] = []
    for line in text.split("\n"):
        level = levels.get(_words(line))
        if level:
            yield Piece("\n".join(run), headings.path, number)
            name = " ".join(line.split())
            headings.enter(level, name)
            run = [f"{'#' * level} {name}"]
        else:
            run.append(line)
    yield Piece("\n".join(run), headings.path, number)


def _words(line: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(line.casefold()))


def _reads_well(markdown: str, plain: str) -> bool:
    """Whether the page's Markdown holds the page's words, and reads from left to right."""
    if not plain.strip():
        return True
    if is_right_to_left(plain):
        return False
    there, here = _counted(plain), _counted(markdown)
    missing = (there - here).total()
    unknown = sum(count for word, count in here.items() if word not in there)
    return missing <= _DISAGREEMENT * there.total() and unknown <= _DISAGREEMENT * here.total()


def _counted(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(_HYPHEN.sub("", _SOFT_HYPHEN.sub("", text)).casefold()))


def _tidied(markdown: str) -> str:
    """Without rules, emphasis and escapes, which are typography and not text; drawn bullets become list items."""
    listed = "\n".join(line if line.startswith("|") else _SYMBOL.sub("\n- ", line) for line in markdown.split("\n"))
    return _BULLET.sub("- ", _ESCAPE.sub(r"\1", _EMPHASIS.sub(r"\2", _RULE.sub("", listed))))


def _rejoined(markdown: str, plain: str) -> str:
    """With words whole that the page breaks at a line's end and ``plain`` holds in one piece."""
    whole = _counted(plain) if _HALVES.search(markdown) else Counter()
    return _HALVES.sub(lambda f: f[1] + f[2] if (f[1] + f[2]).casefold() in whole else f[0], markdown)


def _properties(metadata: dict[str, str]) -> dict[str, str]:
    found = {
        "author": metadata.get("Author"),
        "created": metadata.get("CreationDate"),
        "modified": metadata.get("ModDate"),
    }
    return {key: value for key, value in found.items() if value}


def _few(warnings: list[str]) -> tuple[str, ...]:
    """The warnings, of many the first and how many more there are."""
    more = len(warnings) - _MAX_WARNINGS
    return (*warnings[:_MAX_WARNINGS], f"{more} more warnings about pages") if more > 0 else tuple(warnings)


def _count(pages: int) -> str:
    return "1 page" if pages == 1 else f"{pages} pages"
