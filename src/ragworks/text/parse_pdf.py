"""PDF to sections with page numbers: structure from one reader, checked word for word against another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pypdfium2
from liteparse import LiteParse

from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument, NoTextLayer
from ragworks.text import ocr
from ragworks.text.assemble import Piece, assemble
from ragworks.text.parse_markdown import Headings, outline
from ragworks.types import Parsed

MAX_PAGES = 20_000
_WORDS = re.compile(r"[^\W_]+")
_SOFT_HYPHEN = re.compile("[\ufffe\u00ad](?:[ \t]*\r?\n)?")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-[ \t]*\r?\n[ \t]*(?=[^\W\d_])")
_EMPHASIS = re.compile(r"(?<!\\)(\*{1,3})(?=\S)((?:[^*\n]|\\\*)+?)(?<=\S)(?<!\\)\1")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!<>~$-])")
_RULE = re.compile(r"^[ \t]*(?:-{3,}|`{3}\w*\n\s*`{3})[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^(?:#{1,6} )?[•▪●◦‣] *", re.MULTILINE)
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
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
        plain, unread = ocr.recognised_pages(document, plain)
        metadata = document.get_metadata_dict(skip_empty=True)
    finally:
        document.close()
    if not any(_LETTER.search(text) or _WORDS.search(text) for text in plain):
        raise NoTextLayer(
            f"the PDF has {_count(len(plain))} but "
            + ("no text layer, and text recognition found no text either" if ocr.available() else ocr.ADVICE)
        )
    marked, more = _marked_pages(data, len(plain))
    return assemble(
        _pieces(plain, marked),
        "application/pdf",
        title=metadata.get("Title"),
        pages=len(plain),
        properties=_properties(metadata),
        warnings=tuple(warnings + unread + more),
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
    return texts, warnings


def _plain_text(page: Any) -> str:
    # get_text_bounded would leave out what lies beyond the page's box, half of one file we met.
    textpage = page.get_textpage()
    try:
        return _SOFT_HYPHEN.sub("", str(textpage.get_text_range())).replace("\r\n", "\n")
    finally:
        textpage.close()


def _marked_pages(data: bytes, pages: int) -> tuple[list[str], list[str]]:
    """Markdown of each page, empty where there is none, and the warnings."""
    reader = LiteParse(
        ocr_enabled=False,
        output_format="markdown",
        quiet=True,
        image_mode="off",
        continue_on_page_error=True,
        extract_links=False,
        max_pages=pages,
    )
    marked = [""] * pages
    try:
        result = reader.parse(data)
    except Exception as error:  # its errors have no common base; the plain text is there already
        return marked, [f"the layout could not be read, plain text was taken: {error}"]
    for page in result.pages:
        if 0 < page.page_num <= pages:
            marked[page.page_num - 1] = page.markdown
    return marked, [f"page {bad.page_num}: its layout cannot be read: {bad.message}" for bad in result.page_errors]


def _pieces(plain: list[str], marked: list[str]) -> Iterator[Piece]:
    headings = Headings()
    for number, (text, markdown) in enumerate(zip(plain, marked, strict=True), start=1):
        if _reads_well(markdown, text):
            tidy = _tidied(markdown)
            for section in outline(tidy, headings, number):
                yield Piece(tidy[section.start : section.end], section.headings, number, section.kind)
        else:
            yield Piece(text, headings.path, number)


def _reads_well(markdown: str, plain: str) -> bool:
    """Whether the page's Markdown holds the page's words, and reads from left to right."""
    if not plain.strip():
        return True
    if len(_RTL.findall(plain)) * 4 > len(_LETTER.findall(plain)):
        return False
    there, here = _counted(plain), _counted(markdown)
    missing = (there - here).total()
    unknown = sum(count for word, count in here.items() if word not in there)
    return missing <= _DISAGREEMENT * there.total() and unknown <= _DISAGREEMENT * here.total()


def _counted(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(_HYPHEN.sub("", _SOFT_HYPHEN.sub("", text)).casefold()))


def _tidied(markdown: str) -> str:
    """Without rules, emphasis and escapes, which are typography and not text; drawn bullets become list items."""
    return _BULLET.sub("- ", _ESCAPE.sub(r"\1", _EMPHASIS.sub(r"\2", _RULE.sub("", markdown))))


def _properties(metadata: dict[str, str]) -> dict[str, str]:
    found = {
        "author": metadata.get("Author"),
        "created": metadata.get("CreationDate"),
        "modified": metadata.get("ModDate"),
    }
    return {key: value for key, value in found.items() if value}


def _count(pages: int) -> str:
    return "1 page" if pages == 1 else f"{pages} pages"
