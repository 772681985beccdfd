"""Bytes to text and sections: who reads which kind of document."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ragworks.errors import CorruptDocument, EmptyDocument, NoTextLayer, RagworksError
from ragworks.text.classify import (
    CSV,
    DOCX,
    EML,
    EPUB,
    HTML,
    IMAGES,
    JSON,
    JSON_LINES,
    MARKDOWN,
    MSG,
    ODS,
    PDF,
    PLAIN,
    PPTX,
    XLS,
    XLSB,
    XLSX,
    classify,
)
from ragworks.text.decode import declared_charset, decode
from ragworks.text.ocr import parse_image
from ragworks.text.parse_csv import parse_csv
from ragworks.text.parse_eml import read_eml
from ragworks.text.parse_epub import parse_epub
from ragworks.text.parse_html import parse_html
from ragworks.text.parse_json import parse_json
from ragworks.text.parse_mail import Message, parse_mail
from ragworks.text.parse_markdown import parse_markdown
from ragworks.text.parse_msg import read_msg
from ragworks.text.parse_office import parse_docx
from ragworks.text.parse_pdf import parse_pdf
from ragworks.text.parse_sheets import parse_sheets
from ragworks.text.parse_slides import parse_slides
from ragworks.types import Parsed, Section


def _read_html(data: bytes) -> Parsed:
    return parse_html(decode(data, declared_charset(data)))


def _read_markdown(data: bytes) -> Parsed:
    return parse_markdown(decode(data))


def _read_plain(data: bytes) -> Parsed:
    text = decode(data)
    return Parsed(text, tuple(whole(text)), PLAIN)


def _attached(data: bytes, name: str) -> Parsed | Message:
    kind = classify(data, name)
    return MAIL[kind](data) if kind in MAIL else parse(data, name)


MAIL: dict[str, Callable[[bytes], Message]] = {EML: read_eml, MSG: read_msg}
FORMATS: dict[str, Callable[[bytes], Parsed]] = {
    PDF: parse_pdf,
    DOCX: parse_docx,
    PPTX: parse_slides,
    XLSX: partial(parse_sheets, media_type=XLSX),
    XLSB: partial(parse_sheets, media_type=XLSB),
    XLS: partial(parse_sheets, media_type=XLS),
    ODS: partial(parse_sheets, media_type=ODS),
    EPUB: parse_epub,
    HTML: _read_html,
    MARKDOWN: _read_markdown,
    PLAIN: _read_plain,
    CSV: parse_csv,
    JSON: parse_json,
    JSON_LINES: parse_json,
    EML: lambda data: parse_mail(read_eml(data), EML, _attached),
    MSG: lambda data: parse_mail(read_msg(data), MSG, _attached),
    **{kind: partial(parse_image, media_type=kind) for kind in IMAGES},
}
"""Media type to parser: bytes in, Parsed out, a DocumentError when they cannot be read. One row adds a format."""


def parse(data: bytes, name: str, media_type: str | None = None) -> Parsed:
    """The text of a document, and the sections that point into it.

    ``media_type`` decides when it is given, otherwise the content and, among plain texts, the ending of ``name``.
    Raises UnsupportedFormat, EmptyDocument, EncryptedDocument, CorruptDocument, NoTextLayer or DocumentTooLarge.
    """
    if not data.strip():
        raise EmptyDocument("the document is empty: it holds no text")
    kind = media_type if media_type in FORMATS else classify(data, name)
    try:
        parsed = FORMATS[kind](data)
    except (RagworksError, MemoryError):
        raise
    except Exception as error:  # a parsing library may raise anything on a broken file
        raise CorruptDocument(f"the {kind} document cannot be read: {type(error).__name__}: {error}") from error
    if not parsed.text.strip():
        reason = "the document holds no text"
        raise NoTextLayer(reason) if kind == PDF else EmptyDocument(reason)
    return parsed


def whole(text: str) -> list[Section]:
    """One section that spans the text."""
    return [Section(0, len(text))] if text.strip() else []
