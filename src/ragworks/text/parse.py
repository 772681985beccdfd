"""Bytes to text and sections: what kind of document it is, and who reads that kind."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from functools import partial

from ragworks.errors import (
    CorruptDocument,
    EmptyDocument,
    EncryptedDocument,
    NoTextLayer,
    RagworksError,
    UnsupportedFormat,
)
from ragworks.text.decode import declared_charset, decode, is_binary
from ragworks.text.names import ending
from ragworks.text.ocr import parse_image
from ragworks.text.parse_eml import read_eml
from ragworks.text.parse_html import parse_html
from ragworks.text.parse_mail import Message, parse_mail
from ragworks.text.parse_markdown import parse_markdown
from ragworks.text.parse_msg import is_msg, read_msg
from ragworks.text.parse_office import parse_docx
from ragworks.text.parse_pdf import parse_pdf
from ragworks.types import Parsed, Section

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HTML = "text/html"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"
EML = "message/rfc822"
MSG = "application/vnd.ms-outlook"
IMAGES: dict[str, bytes | tuple[bytes, ...]] = {
    "image/png": b"\x89PNG\r\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/tiff": (b"II*\0", b"MM\0*"),
    "image/bmp": b"BM",
    "image/webp": b"RIFF",
}
"""Media type to what such a file begins with."""

SUPPORTED = "PDF, Word (.docx), HTML, mail (.eml, .msg), images, Markdown and any plain text"


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
    HTML: _read_html,
    MARKDOWN: _read_markdown,
    PLAIN: _read_plain,
    EML: lambda data: parse_mail(read_eml(data), EML, _attached),
    MSG: lambda data: parse_mail(read_msg(data), MSG, _attached),
    **{kind: partial(parse_image, media_type=kind) for kind in IMAGES},
}
"""Media type to parser: bytes in, Parsed out, a DocumentError when they cannot be read. One row adds a format."""

_BY_ENDING = {"md": MARKDOWN, "markdown": MARKDOWN, "mdown": MARKDOWN, "html": HTML, "htm": HTML, "xhtml": HTML}

_SIGNATURES = (
    (b"{\\rtf", "a rich text (RTF) document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"ID3", "an audio file"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
)
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_INSIDE_ZIP = (
    ("ppt/presentation.xml", "a PowerPoint presentation (.pptx)"),
    ("xl/workbook.xml", "an Excel workbook (.xlsx)"),
    ("xl/workbook.bin", "an Excel workbook (.xlsb)"),
    ("META-INF/container.xml", "an e-book (.epub)"),
    ("content.xml", "an OpenDocument file"),
)
_INSIDE_OLE2 = (
    ("WordDocument", "an old Word document (.doc)"),
    ("PowerPoint Document", "an old PowerPoint presentation (.ppt)"),
    ("Workbook", "an old Excel workbook (.xls)"),
)
_HTML_START = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_MAIL_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[ \t]?[^\n]*\n(?:[ \t]+[^\n]*\n)*")
_MAIL_ONLY = {b"mime-version", b"message-id", b"received", b"content-transfer-encoding", b"return-path"}


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
    except RagworksError:
        raise
    except Exception as error:  # a parsing library may raise anything on a broken file
        raise CorruptDocument(f"the {kind} document cannot be read: {type(error).__name__}: {error}") from error
    if not parsed.text.strip():
        reason = "the document holds no text"
        raise NoTextLayer(reason) if kind == PDF else EmptyDocument(reason)
    return parsed


def classify(data: bytes, name: str) -> str:
    """The media type of a document that can be parsed. Raises UnsupportedFormat or EncryptedDocument otherwise."""
    if b"%PDF-" in data[:1024]:
        return PDF
    if data.startswith(b"PK\x03\x04"):
        return _inside_zip(data)
    if data.startswith(_OLE2):
        if is_msg(data):
            return MSG
        raise _inside_ole2(data)
    if _is_mail(data, name):  # before what looks binary: a mail may carry 8-bit parts as they are
        return EML
    for kind, beginning in IMAGES.items():
        if data.startswith(beginning) and is_binary(data) and (kind != "image/webp" or data[8:12] == b"WEBP"):
            return kind
    for signature, called in _SIGNATURES:
        if data.startswith(signature) and (is_binary(data) or signature == b"{\\rtf"):
            raise _unsupported(called)
    if is_binary(data):
        raise _unsupported("binary data")
    return HTML if _HTML_START.match(data[:4096].removeprefix(b"\xef\xbb\xbf")) else _BY_ENDING.get(ending(name), PLAIN)


def whole(text: str) -> list[Section]:
    """One section that spans the text."""
    return [Section(0, len(text))] if text.strip() else []


def _inside_zip(data: bytes) -> str:
    try:
        names = set(zipfile.ZipFile(io.BytesIO(data)).namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise CorruptDocument(f"the file begins like an office document or archive but is broken: {error}") from error
    if "word/document.xml" in names:
        return DOCX
    raise _unsupported(next((called for inside, called in _INSIDE_ZIP if inside in names), "a ZIP archive"))


def _inside_ole2(data: bytes) -> RagworksError:
    def holds(entry: str) -> bool:
        return entry.encode("utf-16-le") in data

    if holds("EncryptedPackage") or holds("EncryptionInfo"):
        return EncryptedDocument("the office document is encrypted; remove its password and submit it again")
    return _unsupported(next((called for inside, called in _INSIDE_OLE2 if holds(inside)), "an old office document"))


def _is_mail(data: bytes, name: str) -> bool:
    """Whether it begins with mail headers that no letter or memo has."""
    seen: set[bytes] = set()
    at = 0
    head = data[:16384].removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").lstrip()
    while found := _MAIL_HEADER.match(head, at):
        seen.add(found.group(1).lower())
        at = found.end()
    return bool(seen & {b"from", b"to", b"subject", b"received"}) and (bool(seen & _MAIL_ONLY) or ending(name) == "eml")


def _unsupported(called: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"the file looks like {called}, which this version does not read; supported are {SUPPORTED}: "
        "convert the file to one of these and submit it again"
    )
