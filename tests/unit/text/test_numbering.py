"""Numbers that Word draws and does not store: a document that defines them must give them back."""

from __future__ import annotations

import io
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls, qn

from ragworks.text.numbering import Numbering, drawn
from ragworks.text.parse_office import parse_docx


def level(at: int, form: str, text: str, start: int = 1) -> str:
    return (
        f'<w:lvl w:ilvl="{at}"><w:start w:val="{start}"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'
    )


def document_with(*levels: str, overrides: str = "") -> Any:
    """A document whose lists 91 and 92 share one definition."""
    document = docx.Document()
    numbering = document.part.numbering_part.element
    defined = parse_xml(f'<w:abstractNum {nsdecls("w")} w:abstractNumId="90">{"".join(levels)}</w:abstractNum>')
    numbering.insert(0, defined)
    for number, inside in ((91, ""), (92, overrides)):
        numbering.append(
            parse_xml(f'<w:num {nsdecls("w")} w:numId="{number}"><w:abstractNumId w:val="90"/>{inside}</w:num>')
        )
    return document


NESTED = (level(0, "decimal", "%1"), level(1, "decimal", "%1.%2"), level(2, "decimal", "%1.%2.%3"))


def markers(document: Any, *asked: tuple[str, int]) -> list[str]:
    numbering = Numbering(document)
    return [numbering.marker(number, at).strip() for number, at in asked]


def test_levels_count_below_each_other_and_begin_anew() -> None:
    levels = (0, 1, 1, 2, 0, 1)
    assert markers(document_with(*NESTED), *(("91", at) for at in levels)) == ["1", "1.1", "1.2", "1.2.1", "2", "2.1"]


def test_a_skipped_level_counts_from_its_start() -> None:
    document = document_with(level(0, "decimal", "%1", 2), level(1, "decimal", "%1.%2", 3), NESTED[2])
    assert markers(document, ("91", 2), ("91", 2), ("91", 1)) == ["2.3.1", "2.3.2", "2.4"]


def test_lists_of_one_definition_go_on_counting_unless_one_restarts() -> None:
    assert markers(document_with(*NESTED), ("91", 0), ("92", 0)) == ["1", "2"]
    restart = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride>'
    assert markers(document_with(*NESTED, overrides=restart), ("91", 0), ("92", 0)) == ["1", "5"]


def test_marks_of_all_kinds_are_drawn() -> None:
    document = document_with(level(0, "upperRoman", "Article %1:"), level(1, "bullet", ""), level(2, "none", ""))
    assert markers(document, ("91", 0), ("91", 1), ("91", 2), ("99", 0)) == ["Article I:", "-", "", "-"]


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [(3, "lowerLetter", "c"), (27, "upperLetter", "AA"), (1999, "lowerRoman", "mcmxcix"), (0, "upperRoman", "0"),
     (5000, "lowerRoman", "5000"), (9, "decimalZero", "09"), (3, "chineseCounting", "3")],
)  # fmt: skip
def test_numbers_are_drawn_in_their_format(number: int, form: str, text: str) -> None:
    assert drawn(number, form) == text


def test_a_numbered_heading_carries_its_number() -> None:
    document = document_with(*NESTED)
    for at, text in enumerate(("Parts", "Bells")):
        heading = document.add_paragraph(text, style=f"Heading {at + 1}")
        properties = f'<w:numPr {nsdecls("w")}><w:ilvl w:val="{at}"/><w:numId w:val="91"/></w:numPr>'
        heading._p.get_or_add_pPr().append(parse_xml(properties))
    document.add_paragraph("Nine euros.")
    buffer = io.BytesIO()
    document.save(buffer)
    parsed = parse_docx(buffer.getvalue())
    assert parsed.text == "# 1 Parts\n\n## 1.1 Bells\n\nNine euros."
    assert parsed.sections[-1].headings == ("1 Parts", "1.1 Bells")


def test_a_level_out_of_range_is_no_harm() -> None:
    document = document_with(*NESTED)
    item = document.add_paragraph("Bell")
    item._p.get_or_add_pPr().append(
        parse_xml(f'<w:numPr {nsdecls("w")}><w:ilvl w:val="99999999"/><w:numId w:val="91"/></w:numPr>')
    )
    assert item._p.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
    buffer = io.BytesIO()
    document.save(buffer)
    assert parse_docx(buffer.getvalue()).text.strip() == "- Bell"
