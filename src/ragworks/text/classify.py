"""What kind of document some bytes are: by their content and, among plain texts, by the ending of their name."""

from __future__ import annotations

import re
from itertools import islice

from ragworks.errors import EncryptedDocument, UnsupportedFormat
from ragworks.text.archive import listed, unpacked
from ragworks.text.decode import head, is_binary
from ragworks.text.names import ending
from ragworks.text.parse_csv import sniffed
from ragworks.text.parse_msg import is_msg

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroEnabled.12"
XLS = "application/vnd.ms-excel"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
EPUB = "application/epub+zip"
HTML = "text/html"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"
CSV = "text/csv"
JSON = "application/json"
JSON_LINES = "application/jsonl"
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

SUPPORTED = (
    "PDF, Word (.docx), PowerPoint (.pptx), Excel (.xlsx, .xlsb, .xls, also .ods), EPUB, mail (.eml, .msg), HTML, "
    "images, Markdown, CSV, JSON and any plain text"
)

_BY_ENDING = {
    **dict.fromkeys(("md", "markdown", "mdown"), MARKDOWN),
    **dict.fromkeys(("html", "htm", "xhtml"), HTML),
    **dict.fromkeys(("csv", "tsv", "tab"), CSV),
    **dict.fromkeys(("json", "jsonl", "ndjson", "geojson"), JSON),
}

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
    ("word/", DOCX),
    ("xl/workbook.bin", XLSB),
    ("xl/", XLSX),
    ("ppt/", PPTX),
    ("META-INF/container.xml", EPUB),
)
_BY_MIMETYPE = {kind.encode(): kind for kind in (ODS, EPUB)}
_REFUSED_INSIDE_ZIP = (
    ("content.xml", "an OpenDocument file"),
    ("Index/Document.iwa", "a document of Apple's Pages, Numbers or Keynote"),
)
_INSIDE_OLE2 = (
    ("WordDocument", "an old Word document (.doc)"),
    ("PowerPoint Document", "an old PowerPoint presentation (.ppt)"),
)
_HTML_START = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_JSON_START = re.compile(r'\s*(?:\[\s*)?\{\s*"(?:[^"\\\n]|\\.)*"\s*:')
_MAIL_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):[ \t]?[^\n]*\n(?:[ \t]+[^\n]*\n)*")
_MAIL_ONLY = {b"mime-version", b"message-id", b"received", b"content-transfer-encoding", b"return-path"}


def classify(data: bytes, name: str) -> str:
    """The media type of a document that can be parsed. Raises UnsupportedFormat or EncryptedDocument otherwise."""
    if data.startswith(b"PK\x03\x04"):
        return _inside_zip(data)
    if b"%PDF-" in data[:1024]:
        return PDF
    if data.startswith(_OLE2):
        return MSG if is_msg(data) else _inside_ole2(data)
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
    return _among_texts(head(data), name)


def _among_texts(text: str, name: str) -> str:
    if _HTML_START.match(text, 0, 4096):
        return HTML
    if _JSON_START.match(text):
        return JSON
    by_ending = _BY_ENDING.get(ending(name))
    return by_ending or (CSV if sniffed(text, named=False) else PLAIN)


def _inside_zip(data: bytes) -> str:
    archive = listed(data)
    names = archive.namelist()
    if "mimetype" in names:
        declared = b"".join(islice(unpacked(archive, "mimetype"), 1)).strip()
        if declared in _BY_MIMETYPE:
            return _BY_MIMETYPE[declared]
    for start, kind in _INSIDE_ZIP:
        if any(name.startswith(start) for name in names):
            return kind
    refused = (called for start, called in _REFUSED_INSIDE_ZIP if any(name.startswith(start) for name in names))
    raise _unsupported(next(refused, "a ZIP archive"))


def _inside_ole2(data: bytes) -> str:
    def holds(entry: str) -> bool:
        return entry.encode("utf-16-le") in data

    if holds("EncryptedPackage") or holds("EncryptionInfo"):
        raise EncryptedDocument("the office document is encrypted; remove its password and submit it again")
    refused = next((called for inside, called in _INSIDE_OLE2 if holds(inside)), None)
    if refused is None and (holds("Workbook") or holds("Book")):
        return XLS
    raise _unsupported(refused or "an old office document")


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
