"""Small documents of every format, made on the spot."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import docx
from fpdf import FPDF

Pages = Sequence[Sequence[str]]


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
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


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


def encrypted_office() -> bytes:
    """The beginning of an office document that is encrypted: a compound file with the streams that Word writes."""
    names = "Root Entry", "EncryptionInfo", "EncryptedPackage"
    return (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(504)
        + b"".join(name.encode("utf-16-le") + bytes(64) for name in names)
    )
