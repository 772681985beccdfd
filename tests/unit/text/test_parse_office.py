from __future__ import annotations

import contextlib
from typing import Any

import docx
import pytest
from docx.enum.text import WD_BREAK
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from documents import altered, entry, saved, word
from ragworks.errors import CorruptDocument
from ragworks.text.parse_office import parse_docx


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


NOTES = (
    '<w:{kind}s {ns}><w:{kind} w:type="separator" w:id="-1"><w:p><w:r><w:t>----</w:t></w:r></w:p></w:{kind}>'
    '<w:{kind} w:id="2"><w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:{kind}Ref/></w:r>'
    "<w:r><w:t>Or brass.</w:t></w:r></w:p></w:{kind}></w:{kind}s>"
)


def with_notes(document: Any, kind: str, notes: str) -> bytes:
    """The document with a part of foot- or endnotes."""
    part = Part(PackURI(f"/word/{kind}s.xml"), "application/xml", notes.encode(), document.part.package)
    document.part.relate_to(part, f"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}s")
    return saved(document)


def refer(paragraph: Any, kind: str, id: int) -> None:
    paragraph._p.append(parse_xml(f'<w:r {nsdecls("w")}><w:{kind}Reference w:id="{id}"/></w:r>'))


@pytest.mark.parametrize("kind", ["footnote", "endnote"])
def test_a_note_stands_below_what_refers_to_it(kind: str) -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("Made of steel")
    refer(paragraph, kind, 2)
    paragraph.add_run(" since 1990.")
    refer(paragraph, kind, 99)
    document.add_paragraph("Nine euros.")
    parsed = parse_docx(with_notes(document, kind, NOTES.format(kind=kind, ns=nsdecls("w"))))
    assert parsed.text == "Made of steel[^1] since 1990.\n\n[^1]: Or brass.\n\nNine euros."


def test_a_note_inside_a_table_stands_below_the_table() -> None:
    document = docx.Document()
    cell = document.add_table(1, 2).cell(0, 1)
    cell.text = "steel"
    refer(cell.paragraphs[0], "footnote", 2)
    parsed = parse_docx(with_notes(document, "footnote", NOTES.format(kind="footnote", ns=nsdecls("w"))))
    assert parsed.text == "|  | steel[^1] |\n| --- | --- |\n\n[^1]: Or brass."


def test_a_heading_bears_no_mark_of_its_note() -> None:
    document = docx.Document()
    refer(document.add_heading("Frame", 1), "footnote", 2)
    parsed = parse_docx(with_notes(document, "footnote", NOTES.format(kind="footnote", ns=nsdecls("w"))))
    assert parsed.text == "# Frame\n\n[^1]: Or brass."
    assert parsed.sections[-1].headings == ("Frame",)


def test_a_note_that_is_referred_to_without_end_is_read_once() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("x")
    for _ in range(200):
        refer(paragraph, "footnote", 2)
    parsed = parse_docx(with_notes(document, "footnote", NOTES.format(kind="footnote", ns=nsdecls("w"))))
    assert parsed.text.count("Or brass.") == 1


def test_notes_that_are_broken_cost_the_notes() -> None:
    document = docx.Document()
    refer(document.add_paragraph("Made of steel."), "footnote", 2)
    assert parse_docx(with_notes(document, "footnote", "not xml")).text == "Made of steel."


def test_the_text_of_links_and_boxes_is_read_where_it_stands() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("See ")
    for inside in (
        "<w:hyperlink><w:r><w:t>the manual</w:t></w:r></w:hyperlink>",
        "<w:r><w:pict><v:shape xmlns:v='urn:schemas-microsoft-com:vml'><v:textbox><w:txbxContent><w:p><w:r><w:t>Boxed"
        "</w:t></w:r></w:p><w:p><w:r><w:t>twice</w:t></w:r></w:p></w:txbxContent></v:textbox></v:shape></w:pict></w:r>",
        "<w:r><w:t>and more</w:t></w:r>",
    ):
        paragraph._p.append(parse_xml(inside.replace(">", f" {nsdecls('w')}>", 1)))
    assert parse_docx(saved(document)).text == "See the manual\nBoxed\ntwice\nand more"


def test_page_breaks_make_no_pages() -> None:
    document = docx.Document()
    document.add_paragraph("One").add_run().add_break(WD_BREAK.PAGE)
    document.add_paragraph("Two")
    parsed = parse_docx(saved(document))
    assert (parsed.text, parsed.pages) == ("One\n\nTwo", None)
    assert {section.page for section in parsed.sections} == {None}


@pytest.mark.parametrize(
    "kind",
    [
        "vnd.ms-word.document.macroEnabled.main+xml",
        "vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    ],
)
def test_templates_and_documents_with_macros_are_read_like_others(kind: str) -> None:
    data = word(("Normal", "Made of steel."))
    types = entry(data, "[Content_Types].xml").decode()
    known = "vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    assert known in types
    assert parse_docx(altered(data, {"[Content_Types].xml": types.replace(known, kind)})).text == "Made of steel."


def test_entities_neither_multiply_nor_fetch_anything() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    doctype = f'<!DOCTYPE x [{entities}<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    data = word(("Normal", "Kept MARK"))
    xml = entry(data, "word/document.xml").decode().replace("?>", f"?>{doctype}", 1).replace("MARK", "&e11; &file;")
    with contextlib.suppress(CorruptDocument):
        text = parse_docx(altered(data, {"word/document.xml": xml})).text
        assert text.startswith("Kept")
        assert len(text) < 100


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
