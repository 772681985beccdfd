from __future__ import annotations

import io
from typing import Any

import docx
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from documents import word
from ragworks.text.parse_office import parse_docx


def saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_paragraphs_tables_and_lists_keep_the_order_of_the_document() -> None:
    data = word(
        ("Title", "Manual"),
        ("Heading 1", "Parts"),
        ("Normal", "All parts:"),
        ("List Bullet", "bell"),
        ("List Bullet", "lamp"),
        [["Part", "EUR"], ["Bell", "9"]],
        ("List Number", "unscrew"),
        ("List Number", "replace"),
        ("Normal", "Done."),
        title="Bike manual",
    )
    parsed = parse_docx(data)
    assert parsed.text.split("\n\n") == [
        "# Manual",
        "## Parts",
        "All parts:",
        "- bell\n- lamp",
        "| Part | EUR |\n| --- | --- |\n| Bell | 9 |",
        "1. unscrew\n2. replace",
        "Done.",
    ]
    assert parsed.title == "Bike manual"
    assert parsed.sections[-1].headings == ("Manual", "Parts")
    assert parsed.pages is None


def test_merged_cells_are_read_once() -> None:
    document = docx.Document()
    table = document.add_table(2, 3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(0, 2).merge(table.cell(1, 2)).text = "high"
    table.cell(1, 0).text, table.cell(1, 1).text = "a", "b"
    assert parse_docx(saved(document)).text == "| wide |  | high |\n| --- | --- | --- |\n| a | b |  |"


def test_text_that_was_deleted_or_is_an_alternative_for_old_programs_is_left_out() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("Kept")
    for inside in (
        "<w:ins><w:r><w:t>, added</w:t></w:r></w:ins>",
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>",
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom>",
    ):
        paragraph._p.append(parse_xml(inside.replace(">", f" {nsdecls('w')}>", 1)))
    assert parse_docx(saved(document)).text == "Kept, added"


def test_paragraphs_inside_a_content_control_are_read() -> None:
    document = docx.Document()
    document.element.body.insert(
        0,
        parse_xml(
            f"<w:sdt {nsdecls('w')}><w:sdtContent><w:p><w:r><w:t>Inside</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        ),
    )
    assert parse_docx(saved(document)).text == "Inside"


def test_author_and_dates_are_properties() -> None:
    document = docx.Document()
    document.add_paragraph("x")
    document.core_properties.author = "Ann Lee"
    properties = parse_docx(saved(document)).properties
    assert properties["author"] == "Ann Lee"
    assert properties["created"].startswith("20")


def test_lines_in_a_typewriter_face_are_code_if_they_look_like_code() -> None:
    document = docx.Document()
    for line in ("def fib(n):", "  return n", "A memo in an old face, for a vintage look."):
        document.add_paragraph().add_run(line).font.name = "Courier New"
    document.add_paragraph("Call printf() to print.")
    assert parse_docx(saved(document)).text.split("\n\n") == [
        "```\ndef fib(n):\n  return n\n```",
        "A memo in an old face, for a vintage look.",
        "Call printf() to print.",
    ]
