"""Word documents to sections: headings, paragraphs, lists, tables and code in document order. No page numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from docx.opc.part import PartFactory
from docx.oxml.ns import qn
from docx.package import Package
from docx.parts.document import DocumentPart

from ragworks.errors import CorruptDocument
from ragworks.text.archive import opened
from ragworks.text.assemble import Piece, assemble
from ragworks.text.footnotes import place_notes
from ragworks.text.numbering import Numbering
from ragworks.text.omml import FORMULA, latex
from ragworks.text.parse_markdown import Headings
from ragworks.text.tables import markdown_table
from ragworks.types import Parsed

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
# Templates and documents with macros are made like others; python-docx knows only these.
for _kind in (
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
):
    PartFactory.part_type_for[_kind] = DocumentPart
_CODE_STYLES = frozenset({"code", "source code", "code block", "html preformatted", "preformatted text", "verbatim"})
_TYPEWRITER = re.compile("mono|courier|consol|menlo|inconsolata|source code|fira code|cascadia code", re.IGNORECASE)
_CODE_SIGN = re.compile(r"^(?: {2}|\t)|[{}\[\]<>=;_$|#]|\w\(|\)$|^(?:return|import|else|end)\b")
_SKIPPED = frozenset(
    {
        qn("w:del"),
        qn("w:moveFrom"),
        qn("w:instrText"),
        qn("w:pPr"),
        qn("w:rPr"),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    }
)
_TEXT_BOX = qn("w:txbxContent")
_TEXT = frozenset({qn("w:t")})
_INSIDE = frozenset({qn("w:sdt"), qn("w:sdtContent"), qn("w:ins"), qn("w:moveTo"), qn("w:customXml"), qn("w:smartTag")})


def parse_docx(data: bytes) -> Parsed:
    """The document's body as Markdown-like text. Raises CorruptDocument, EncryptedDocument or DocumentTooLarge."""
    opened(data)
    try:
        document = Package.open(io.BytesIO(data)).main_document_part.document
        place_notes(document)
    except Exception as error:  # python-docx lets errors of zip, XML and its own through
        raise CorruptDocument(f"the Word document is broken and cannot be opened: {error}") from error
    core = document.core_properties
    return assemble(
        _Body(document).pieces(), MEDIA_TYPE, title=(core.title or "").strip() or None, properties=properties(core)
    )


def properties(core: Any) -> dict[str, str]:
    """Author and dates of the core properties that python-docx or python-pptx read."""
    found: dict[str, str] = {}
    if (core.author or "").strip() not in ("", "python-docx", "python-pptx"):
        found["author"] = core.author.strip()
    for key, date in (("created", core.created), ("modified", core.modified)):
        if date is not None:
            found[key] = date.isoformat()
    return found


class _Body:
    """One pass over a document's body. Styles are looked up once: python-docx would search for every paragraph."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._styles = {style.style_id: style for style in document.styles if style.style_id}
        self._levels: dict[str, int | None] = {}
        self._numbering = Numbering(document)
        self._headings = Headings()
        self._titled = False

    def pieces(self) -> Iterator[Piece]:
        run: list[str] = []
        last = ""
        for element in _blocks(self._document.element.body):
            kind, text = self._read(element)
            if kind != last or kind not in ("list", "code"):
                yield from self._closed(last, run)
                run = []
            last = kind
            run.append(text)
        yield from self._closed(last, run)

    def _closed(self, kind: str, run: list[str]) -> Iterator[Piece]:
        text = "\n".join(run)
        if not text.strip():
            return
        if kind == "code":
            yield Piece(f"```\n{text}\n```", self._headings.path, None, "code")
        elif kind == "table":
            yield Piece(text, self._headings.path, None, "table")
        elif kind == "title":
            self._titled = True
            yield Piece(f"# {text}", self._headings.enter(1, text))
        elif kind.startswith("h"):
            level = min(int(kind[1:]) + self._titled, 6)
            yield Piece(f"{'#' * level} {text}", self._headings.enter(level, text))
        else:
            yield Piece(text, self._headings.path)

    def _read(self, element: Any) -> tuple[str, str]:
        if element.tag == qn("w:tbl"):
            return "table", _table(element)
        text = "".join(_texts(element))
        style = _value(element, "w:pPr/w:pStyle") or ""
        level = self._level(element, style)
        if level is None and self._is_code(element, style):
            return "code", text.rstrip()
        marked = self._marker(element, style) if text.strip() else None
        marker, depth = marked or ("", 0)
        if level is not None:
            return f"h{level}" if level else "title", marker.removeprefix("- ") + " ".join(text.split())
        return ("list", "  " * depth + marker + text.strip()) if marked else ("prose", text.strip())

    def _level(self, paragraph: Any, style: str) -> int | None:
        """The heading level, 1 to 6; 0 for the document's title, None for anything else."""
        outline = _value(paragraph, "w:pPr/w:outlineLvl")
        if outline is not None:
            return _outline_level(outline)
        if style not in self._levels:
            self._levels[style] = self._style_level(style)
        return self._levels[style]

    def _style_level(self, style_id: str) -> int | None:
        for style in self._ancestry(style_id):
            name = (style.name or "").lower()
            if name == "title":
                return 0
            if name.startswith("heading ") and name[8:].isdecimal():
                return min(int(name[8:]), 6)
            outline = _value(style.element, "w:pPr/w:outlineLvl")
            if outline is not None:
                return _outline_level(outline)
        return None

    def _ancestry(self, style_id: str) -> Iterator[Any]:
        seen: set[str] = set()
        while style_id in self._styles and style_id not in seen:
            seen.add(style_id)
            yield self._styles[style_id]
            style_id = _value(self._styles[style_id].element, "w:basedOn") or ""

    def _is_code(self, paragraph: Any, style_id: str) -> bool:
        named = any((style.name or "").lower() in _CODE_STYLES for style in self._ancestry(style_id))
        return named or _is_typed(paragraph)

    def _marker(self, paragraph: Any, style_id: str) -> tuple[str, int] | None:
        """``- `` or ``1.2. `` and the level of its list, or None for a paragraph outside lists."""
        source = [paragraph, *(style.element for style in self._ancestry(style_id))]
        number = next((found for found in (_value(at, "w:pPr/w:numPr/w:numId") for at in source) if found), None)
        if number is None or number == "0":
            return None
        depth = next((found for found in (_value(at, "w:pPr/w:numPr/w:ilvl") for at in source) if found), "0")
        level = min(int(depth), 8) if depth.isdecimal() else 0
        return self._numbering.marker(number, level), level


def _is_typed(paragraph: Any) -> bool:
    """Whether all of its text is in a typewriter face, and looks like no prose in one."""
    runs = [run for run in paragraph.iter(qn("w:r")) if "".join(_texts(run)).strip()]
    fonts = [run.find(f"{qn('w:rPr')}/{qn('w:rFonts')}") for run in runs]
    faces = ["" if font is None else font.get(qn("w:ascii"), "") for font in fonts]
    typed = bool(faces) and all(_TYPEWRITER.search(face) for face in faces)
    return typed and bool(_CODE_SIGN.search("".join(_texts(paragraph))))


def _outline_level(value: str) -> int | None:
    """Word counts from 0; 9 is body text."""
    return min(int(value) + 1, 6) if value.isdecimal() and int(value) < 9 else None


def _blocks(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables in document order, also those inside content controls and tracked insertions."""
    for child in parent:
        if child.tag in (qn("w:p"), qn("w:tbl")):
            yield child
        elif child.tag in _INSIDE:
            yield from _blocks(child)


def _texts(element: Any) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag in _SKIPPED:
            continue
        if tag == FORMULA:
            formula = latex(child).strip()
            yield f"${formula}$" if formula else ""
        elif tag in _TEXT:
            yield child.text or ""
        elif tag == qn("w:tab"):
            yield "\t"
        elif tag == qn("w:br") or tag == qn("w:cr"):
            yield "\n"
        elif tag == qn("w:noBreakHyphen"):
            yield "-"
        elif tag == _TEXT_BOX:
            yield "\n"
            yield from _texts(child)
        else:
            yield from _texts(child)
            if tag == qn("w:p"):
                yield "\n"


def _table(table: Any) -> str:
    rows = [_cells(row) for row in table.iter(qn("w:tr")) if next(row.iterancestors(qn("w:tbl"))) is table]
    return markdown_table([row for row in rows if any(row)])


def _cells(row: Any) -> list[str]:
    cells: list[str] = []
    for cell in row.iter(qn("w:tc")):
        if next(cell.iterancestors(qn("w:tr"))) is not row:
            continue
        merged = cell.find(qn("w:tcPr") + "/" + qn("w:vMerge"))
        continued = merged is not None and merged.get(qn("w:val"), "continue") == "continue"
        span = _value(cell, "w:tcPr/w:gridSpan") or "1"
        text = "" if continued else " ".join("".join(_texts(cell)).split())
        cells += [text] + [""] * (min(int(span), 100) - 1 if span.isdecimal() else 0)
    return cells


def _value(element: Any, path: str) -> str | None:
    found = element.find("/".join(qn(step) for step in path.split("/")))
    value = found.get(qn("w:val")) if found is not None else None
    return str(value) if value is not None else None
