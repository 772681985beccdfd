"""Presentations to sections: a page for every slide, its title as heading, what stands on it in reading order."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.oxml.ns import qn
from pptx.package import Package

from ragworks.errors import CorruptDocument
from ragworks.text.archive import opened
from ragworks.text.assemble import Piece, assemble
from ragworks.text.parse_office import properties
from ragworks.text.shape_order import Box, in_reading_order
from ragworks.text.tables import markdown_table
from ragworks.text.xml import root
from ragworks.types import Parsed

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_TITLES = (PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE, PP_PLACEHOLDER.VERTICAL_TITLE)
_CHROME = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER, PP_PLACEHOLDER.SLIDE_NUMBER)
_LISTS = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY, PP_PLACEHOLDER.VERTICAL_OBJECT)
_ALTERNATIVES = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_GROUP, _FRAME = qn("p:grpSp"), qn("p:graphicFrame")
_DEEPEST = 50
Texts = Iterator[tuple[str, bool]]
"""A block of text, and whether it is a table."""


def parse_slides(data: bytes) -> Parsed:
    """The slides in order, notes below each. Raises CorruptDocument, EncryptedDocument or DocumentTooLarge."""
    opened(data)
    try:
        # Not pptx.Presentation: that refuses slide shows and templates, which are made the same way.
        part = Package.open(io.BytesIO(data)).main_document_part
        ids = [slide.rId for slide in part.presentation.slides._sldIdLst]
        core = part.core_properties
    except Exception as error:  # python-pptx lets errors of zip, XML and its own through
        raise CorruptDocument(f"the presentation is broken and cannot be opened: {error}") from error
    warnings: list[str] = []
    pieces = [piece for number, id in enumerate(ids, start=1) for piece in _read(part, id, number, warnings)]
    return assemble(
        pieces,
        MEDIA_TYPE,
        title=(core.title or "").strip() or None,
        pages=len(ids),
        properties=properties(core),
        warnings=tuple(warnings),
    )


def _read(part: Any, id: str, number: int, warnings: list[str]) -> list[Piece]:
    """A slide's pieces; what cannot be read of it costs that part and a warning."""
    try:
        slide = part.related_slide(id)
        _settle_alternatives(slide.shapes._spTree)
        return list(_pieces(slide, number, warnings))
    except Exception as error:  # one odd slide of many; python-pptx raises KeyError, AttributeError and others
        warnings.append(f"slide {number} cannot be read: {type(error).__name__}: {error}")
        return []


def _settle_alternatives(tree: Any) -> None:
    """Takes the first of the forms in which a shape is stored; python-pptx sees none of them."""
    for one in list(tree.iter(_ALTERNATIVES)):
        for child in list(one[0]) if len(one) else ():
            one.addprevious(child)
        one.getparent().remove(one)


def _pieces(slide: Any, number: int, warnings: list[str]) -> Iterator[Piece]:
    shapes = list(slide.shapes)
    title = next((shape for shape in shapes if _placeholder(shape) in _TITLES and shape.text_frame.text.strip()), None)
    heading = " ".join(title.text_frame.text.split()) if title is not None else ""
    path = (heading,) if heading else ()
    if heading:
        yield Piece(f"# {heading}", path, number)
    for shape in _in_order([shape for shape in shapes if shape is not title]):
        try:
            for text, is_table in list(_texts(shape)):
                yield Piece(text, path, number, "table" if is_table else "prose")
        except Exception as error:  # python-pptx knows half of the kinds of charts
            warnings.append(f"{shape.name!r} on slide {number} cannot be read: {type(error).__name__}: {error}")
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and notes.text.strip():
        yield Piece(f"Notes: {_paragraphs(notes)}", path, number)


def _in_order(shapes: list[Any], depth: int = 0) -> Iterator[Any]:
    """The shapes that say something as they are read, those of groups in place of these."""
    # Without the frames that are only drawn around others: they would hide the gaps between these.
    for shape in in_reading_order(filter(_speaks, shapes), _box):
        if shape.element.tag == _GROUP and depth < _DEEPEST:
            yield from _in_order(list(shape.shapes), depth + 1)
        else:
            yield shape


def _texts(shape: Any) -> Texts:
    if shape.element.tag == _FRAME:
        yield from _graphic(shape)
    elif shape.has_text_frame:
        yield _paragraphs(shape.text_frame, is_list=_placeholder(shape) in _LISTS), False


def _speaks(shape: Any) -> bool:
    if shape.element.tag in (_GROUP, _FRAME):
        return True
    return shape.has_text_frame and bool(shape.text_frame.text.strip()) and _placeholder(shape) not in _CHROME


def _graphic(frame: Any) -> Texts:
    if frame.has_table:
        yield markdown_table([[_cell(cell) for cell in row.cells] for row in frame.table.rows]), True
    elif frame.has_chart:
        yield from _chart(frame.chart)
    else:
        for ids in frame.element.iter(_DIAGRAM):
            diagram = frame.part.related_part(ids.get(qn("r:dm"))).blob
            yield _diagram(diagram), False


def _cell(cell: Any) -> str:
    return "" if cell.is_spanned else str(cell.text_frame.text)


def _chart(chart: Any) -> Texts:
    """The chart's title, and a table of its series by category."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield chart.chart_title.text_frame.text, False
    for plot in chart.plots:
        series = list(plot.series)
        columns = [
            [str(label) for label in plot.categories],
            *([_value(value) for value in one.values] for one in series),
        ]
        rows = list(zip_longest(*columns, fillvalue=""))
        if rows:
            yield markdown_table([("", *(one.name or "" for one in series)), *rows]), True


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"


def _diagram(data: bytes) -> str:
    points = root(data).iter("{http://schemas.openxmlformats.org/drawingml/2006/diagram}pt")
    texts = ("".join(run.text or "" for run in point.iter(qn("a:t"))).strip() for point in points)
    return "\n".join(f"- {text}" for text in texts if text)


def _paragraphs(frame: Any, *, is_list: bool = False) -> str:
    """The paragraphs; as a list where the slide shows one."""
    shown = [paragraph for paragraph in frame.paragraphs if paragraph.text.strip()]
    is_list = is_list and len(shown) > 1
    numbers: dict[int, int] = {}
    return "\n".join(_marker(paragraph, is_list, numbers) + " ".join(paragraph.text.split()) for paragraph in shown)


def _marker(paragraph: Any, is_list: bool, numbers: dict[int, int]) -> str:
    style = paragraph._p.pPr
    indent = "  " * paragraph.level
    for deeper in [level for level in numbers if level > paragraph.level]:
        del numbers[deeper]
    if style is not None and style.find(qn("a:buAutoNum")) is not None:
        numbers[paragraph.level] = numbers.get(paragraph.level, 0) + 1
        return f"{indent}{numbers[paragraph.level]}. "
    if style is not None and style.find(qn("a:buNone")) is not None:
        return ""
    bullet = style is not None and style.find(qn("a:buChar")) is not None
    return f"{indent}- " if bullet or is_list or paragraph.level else ""


def _placeholder(shape: Any) -> Any:
    return shape.placeholder_format.type if shape.is_placeholder else None


def _box(shape: Any) -> Box | None:
    """Where the shape stands; None if nobody says."""
    left, top, width, height = shape.left, shape.top, shape.width, shape.height
    return None if None in (left, top, width, height) else (left, top, left + width, top + height)
