"""Small documents of every format, made on the spot."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import docx
import pptx
import xlsxwriter
import xlwt
from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFont

from compound import compound

Pages = Sequence[Sequence[str]]
Sheets = Mapping[str, Sequence[Sequence[object]]]


def pdf(pages: Pages, *, title: str | None = None, password: str | None = None) -> bytes:
    """A PDF with one paragraph per string; a string that begins with ``# `` is set large, as a heading."""
    made = FPDF()
    if title:
        made.set_title(title)
    if password:
        made.set_encryption(owner_password="owner", user_password=password)
    for paragraphs in pages:
        made.add_page()
        for paragraph in paragraphs:
            made.set_font(
                "Helvetica", "B" if paragraph.startswith("# ") else "", 20 if paragraph.startswith("# ") else 11
            )
            made.multi_cell(0, 8, paragraph.removeprefix("# "), new_x="LMARGIN", new_y="NEXT")
            made.ln(4)
    return bytes(made.output())


def drawn_pdf() -> bytes:
    """A PDF whose page holds a drawing and no text."""
    made = FPDF()
    made.add_page()
    made.rect(20, 20, 100, 100)
    return bytes(made.output())


def word(*blocks: tuple[str, str] | list[list[str]], title: str = "") -> bytes:
    """A Word document: (style, text) is a paragraph, a list of rows a table."""
    made = docx.Document()
    made.core_properties.title = title
    for block in blocks:
        if isinstance(block, tuple):
            made.add_paragraph(block[1], style=block[0])
        else:
            table = made.add_table(len(block), len(block[0]))
            for row, cells in zip(table.rows, block, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
    return saved(made)


def slides(*pages: tuple[str, Sequence[str]], title: str = "") -> bytes:
    """A presentation of (title, points of the body)."""
    made = pptx.Presentation()
    made.core_properties.title = title
    for heading, points in pages:
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = "\n".join(points)
    return saved(made)


def saved(document: Any) -> bytes:
    """What a document of python-docx or python-pptx saves."""
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def workbook(sheets: Sheets, title: str = "") -> bytes:
    """An Excel workbook: name to rows."""
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True, "default_date_format": "yyyy-mm-dd"}) as made:
        if title:
            made.set_properties({"title": title, "author": "Ann Lee"})
        for name, rows in sheets.items():
            sheet = made.add_worksheet(name)
            for at, row in enumerate(rows):
                sheet.write_row(at, 0, row)
    return buffer.getvalue()


def old_workbook(sheets: Sheets) -> bytes:
    """The same as Excel 97 wrote it."""
    made = xlwt.Workbook()
    for name, rows in sheets.items():
        sheet = made.add_sheet(name)
        for at, row in enumerate(rows):
            for column, value in enumerate(row):
                sheet.write(at, column, value)
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def binary_workbook(sheets: Mapping[str, Sequence[Sequence[str]]], first_row: int = 0) -> bytes:
    """The same as an Excel binary workbook: records of a kind, a length, and a body."""

    def number(value: int) -> bytes:
        return value.to_bytes(4, "little")

    def text(value: str) -> bytes:
        return number(len(value)) + value.encode("utf-16-le")

    def record(kind: int, body: bytes = b"") -> bytes:
        low, high = kind & 0x7F, kind >> 7
        return bytes([low | 0x80, high] if high else [low]) + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body

    def sheet(rows: Sequence[Sequence[str]]) -> bytes:
        cells = (
            record(0, number(at) + bytes(21))
            + b"".join(record(6, number(column) + bytes(4) + text(value)) for column, value in enumerate(row))
            for at, row in enumerate(rows, first_row)
        )
        extent = number(0) + number(first_row + len(rows)) + number(0) + number(16)
        return record(129) + record(148, extent) + record(145) + b"".join(cells) + record(146) + record(130)

    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    targets = "".join(
        f'<Relationship Id="r{at}" Type="{rels}/worksheet" Target="worksheets/sheet{at}.bin"/>'
        for at in range(len(sheets))
    )
    listed = b"".join(
        record(156, number(0) + number(at + 1) + text(f"r{at}") + text(name)) for at, name in enumerate(sheets)
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/_rels/workbook.bin.rels": f"<Relationships>{targets}</Relationships>",
            "xl/workbook.bin": record(131) + record(143) + listed + record(144) + record(132),
            **{f"xl/worksheets/sheet{at}.bin": sheet(rows) for at, rows in enumerate(sheets.values())},
        }
    )


def open_sheets(sheets: Mapping[str, str]) -> bytes:
    """An OpenDocument workbook: name to the XML of its rows."""
    spaces = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
    )
    tables = "".join(f'<table:table table:name="{name}">{rows}</table:table>' for name, rows in sheets.items())
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": "<manifest/>",
            "content.xml": f"<office:document-content{spaces}><office:body><office:spreadsheet>{tables}"
            "</office:spreadsheet></office:body></office:document-content>",
        }
    )


def open_row(*cells: str, attributes: str = "") -> str:
    """The XML of one row of texts; the attributes go to the row and its cells."""
    return (
        f"<table:table-row{attributes}>"
        + "".join(
            f'<table:table-cell office:value-type="string"{attributes}><text:p>{cell}</text:p></table:table-cell>'
            for cell in cells
        )
        + "</table:table-row>"
    )


def book(chapters: Mapping[str, str], **others: str) -> bytes:
    """An e-book: name to the body of a chapter, in order; other entries by name, with ``_`` for ``/``.

    ``metadata`` and ``manifest`` are XML for these places of its package.
    """
    metadata, manifest = others.pop("metadata", ""), others.pop("manifest", "")
    items = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfile full-path="OPS/book.opf"/></container>',
            "OPS/book.opf": '<package xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<metadata>{metadata}</metadata><manifest>{items}{manifest}</manifest><spine>{spine}</spine></package>",
            **{f"OPS/{name}.xhtml": page.format(body) for name, body in chapters.items()},
            **{name.replace("_", "/"): content for name, content in others.items()},
        }
    )


def zipped(entries: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive of these entries in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return buffer.getvalue()


def altered(archive: bytes, entries: Mapping[str, bytes | str], *without: str) -> bytes:
    """The archive with these entries added or replaced, and others left out."""
    kept = zipfile.ZipFile(io.BytesIO(archive))
    held = {name: kept.read(name) for name in kept.namelist() if name not in without}
    return zipped({**held, **entries})


def entry(archive: bytes, name: str) -> bytes:
    """The bytes of one entry."""
    return zipfile.ZipFile(io.BytesIO(archive)).read(name)


def entries(archive: bytes) -> list[str]:
    """The names of the entries that hold something."""
    return [one.filename for one in zipfile.ZipFile(io.BytesIO(archive)).infolist() if one.file_size]


def encrypted_office() -> bytes:
    """The beginning of an office document that is encrypted: a compound file with the streams that Word writes."""
    names = "Root Entry", "EncryptionInfo", "EncryptedPackage"
    return (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(504)
        + b"".join(name.encode("utf-16-le") + bytes(64) for name in names)
    )


def eml(body: str = "", *, html: str = "", subject: str = "Frame", attached: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A mail with a plain body, an HTML version of it if given, and attachments by name."""
    made = EmailMessage()
    made["From"], made["To"] = "Ann <ann@example.org>", "Bob <bob@example.org>"
    made["Date"], made["Subject"] = "Tue, 20 Feb 2024 10:15:00 +0100", subject
    made["Message-ID"] = "<1@example.org>"
    made.set_content(body)
    if html:
        made.add_alternative(html, subtype="html")
    for name, data in attached:
        made.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return made.as_bytes()


def nested_eml(messages: int) -> bytes:
    """A message within a message, and so on, ``messages`` in all."""
    head = b"From: a@b.org\nSubject: %d\nMessage-ID: <%d@b.org>\nMIME-Version: 1.0\nContent-Type: "
    outer = b"".join((head + b"message/rfc822\n\n") % (at, at) for at in range(messages - 1))
    return outer + (head + b"text/plain\n\nThe innermost word.") % (messages, messages)


def msg(
    body: str = "", *, subject: str = "Frame", html: bytes = b"", attached: Sequence[tuple[str, bytes]] = ()
) -> bytes:
    """An Outlook message from Ann to Bob, sent on 20 February 2024 at 09:15 UTC."""
    return compound(msg_streams(body, subject=subject, html=html, attached=attached))


def msg_streams(
    body: str = "",
    *,
    subject: str = "Frame",
    html: bytes = b"",
    attached: Sequence[tuple[str, bytes]] = (),
    at: tuple[str, ...] = (),
) -> dict[tuple[str, ...], bytes]:
    """The streams of an Outlook message, at the root of the compound file or, as an attached message, below ``at``."""
    ticks = int(datetime(2024, 2, 20, 9, 15, tzinfo=UTC).timestamp() + 11_644_473_600) * 10_000_000
    header = bytes(24 if at else 32)
    streams = {
        ("__properties_version1.0",): header + struct.pack("<IIQ", 0x00390040, 6, ticks) + _code_page(),
        ("__substg1.0_0037001F",): subject.encode("utf-16-le"),
        ("__substg1.0_0C1A001F",): "Ann".encode("utf-16-le"),
        ("__substg1.0_0C1F001F",): "ann@example.org".encode("utf-16-le"),
        ("__substg1.0_1000001F",): body.encode("utf-16-le"),
        ("__substg1.0_10130102",): html,
        ("__recip_version1.0_#00000000", "__properties_version1.0"): bytes(8) + struct.pack("<IIQ", 0x0C150003, 6, 1),
        ("__recip_version1.0_#00000000", "__substg1.0_3001001F"): "Bob".encode("utf-16-le"),
        ("__recip_version1.0_#00000000", "__substg1.0_39FE001F"): "bob@example.org".encode("utf-16-le"),
    }
    for number, (name, data) in enumerate(attached):
        folder = f"__attach_version1.0_#{number:08X}"
        streams[folder, "__substg1.0_3707001F"] = name.encode("utf-16-le")
        streams[folder, "__substg1.0_37010102"] = data
    return {(*at, *path): data for path, data in streams.items() if data}


def _code_page() -> bytes:
    return struct.pack("<IIQ", 0x3FDE0003, 6, 1251)


def picture(*lines: str, kind: str = "PNG", **options: object) -> bytes:
    """A picture of these lines of text."""
    buffer = io.BytesIO()
    drawn(*lines).save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(*lines: str) -> Image.Image:
    image = Image.new("RGB", (900, 60 + 90 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((40, 40 + 90 * number), line, "black", ImageFont.load_default(size=32))
    return image


def scan(*pages: Sequence[str]) -> bytes:
    """A PDF whose pages are pictures of lines of text; a page of no lines is blank paper."""
    made = FPDF()
    for lines in pages:
        made.add_page()
        if lines:
            made.image(drawn(*lines), x=10, y=10, w=190)
    return bytes(made.output())


def claims(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds no pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")
