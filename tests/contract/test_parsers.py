"""What every parser keeps: exact offsets, order, nothing lost, and an error of ours for whatever cannot be read."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import (
    altered,
    binary_workbook,
    book,
    drawn_pdf,
    eml,
    encrypted_office,
    entries,
    entry,
    msg,
    old_workbook,
    open_row,
    open_sheets,
    pdf,
    picture,
    slides,
    word,
    workbook,
    zipped,
)
from ragworks.errors import (
    CorruptDocument,
    DocumentError,
    DocumentTooLarge,
    EmptyDocument,
    EncryptedDocument,
    NoTextLayer,
    UnsupportedFormat,
)
from ragworks.text import archive as archives
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
from ragworks.text.clean import clean
from ragworks.text.enrich import enrich
from ragworks.text.parse import FORMATS, parse
from strategies import damaged

FACTS = ("The frame is made of steel.", "The bell costs nine euros.", "Brakes need new pads every spring.")
PAGE = f"<!doctype html><h1>Frame</h1><p>{FACTS[0]}<h1>Parts</h1><p>{FACTS[1]}<p>{FACTS[2]}"


@dataclass(frozen=True)
class Sample:
    """A document with the three facts, in this order: under two headings and on two pages if the format has these."""

    name: str
    media_type: str
    data: bytes
    headed: bool = True
    paged: bool = False


ROWS = {"Frame": [[FACTS[0]]], "Parts": [[FACTS[1]], [FACTS[2]]]}

SAMPLES = [
    Sample("frame.txt", PLAIN, "\r\n\r\n".join(FACTS).encode(), headed=False),
    Sample("frame.md", MARKDOWN, f"# Frame\n\n{FACTS[0]}\n\n# Parts\n\n{FACTS[1]}\n\n{FACTS[2]}\n".encode()),
    Sample("frame.csv", CSV, "\n".join(f"{number},{fact}" for number, fact in enumerate(FACTS)).encode(), headed=False),
    Sample("frame.json", JSON, json.dumps([{"fact": fact} for fact in FACTS]).encode(), headed=False),
    Sample("frame.jsonl", JSON_LINES, "\n".join(json.dumps({"fact": x}) for x in FACTS).encode(), headed=False),
    Sample("frame", HTML, PAGE.encode()),
    Sample("frame.eml", EML, eml(" ".join(FACTS), html=PAGE)),
    Sample("frame.msg", MSG, msg(" ".join(FACTS), html=PAGE.encode())),
    *(
        Sample("frame", kind, picture(*FACTS, kind=kind.removeprefix("image/").upper()), headed=False)
        for kind in IMAGES
    ),
    Sample("frame.pdf", PDF, pdf([["# Frame", FACTS[0]], ["# Parts", FACTS[1], FACTS[2]]]), paged=True),
    Sample(
        "frame.docx",
        DOCX,
        word(("Heading 1", "Frame"), ("Normal", FACTS[0]), ("Heading 1", "Parts"), *(("Normal", x) for x in FACTS[1:])),
    ),
    Sample(
        "frame.epub",
        EPUB,
        book({"a": f"<h1>Frame</h1><p>{FACTS[0]}</p>", "b": f"<h1>Parts</h1><p>{FACTS[1]}</p><p>{FACTS[2]}</p>"}),
    ),
    Sample("frame.pptx", PPTX, slides(("Frame", FACTS[:1]), ("Parts", FACTS[1:])), paged=True),
    Sample("frame.xlsx", XLSX, workbook(ROWS)),
    Sample("frame.xlsb", XLSB, binary_workbook(ROWS)),
    Sample("frame.xls", XLS, old_workbook(ROWS)),
    Sample(
        "frame.ods",
        ODS,
        open_sheets({name: "".join(open_row(*row) for row in rows) for name, rows in ROWS.items()}),
    ),
]  # fmt: skip

BEGINNINGS = (
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"<html>",
    b'[{"a":',
    b"\xff\xfe",
    b"sep=;\n",
)

each_format = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.media_type.split(".")[-1])


def test_every_format_has_a_sample() -> None:
    assert {sample.media_type for sample in SAMPLES} == set(FORMATS)


@each_format
def test_the_content_decides_what_a_document_is(sample: Sample) -> None:
    assert parse(sample.data, sample.name).media_type == sample.media_type


@each_format
def test_sections_are_in_order_within_the_text_and_do_not_overlap(sample: Sample) -> None:
    parsed = clean(parse(sample.data, sample.name))
    ends = [0, *(section.end for section in parsed.sections)]
    assert all(end <= section.start < section.end for end, section in zip(ends, parsed.sections, strict=False))
    assert ends[-1] <= len(parsed.text)


@each_format
def test_sections_hold_every_character_that_is_not_whitespace(sample: Sample) -> None:
    parsed = clean(parse(sample.data, sample.name))
    held = "".join(parsed.text[section.start : section.end] for section in parsed.sections)
    assert "".join(held.split()) == "".join(parsed.text.split())


@each_format
def test_all_facts_are_there_in_their_order(sample: Sample) -> None:
    text = clean(parse(sample.data, sample.name)).text
    places = [text.find(fact) for fact in FACTS]
    assert -1 not in places
    assert places == sorted(places)


@each_format
def test_a_passage_knows_its_headings(sample: Sample) -> None:
    parsed = clean(parse(sample.data, sample.name))
    last = parsed.sections[-1]
    assert FACTS[2] in parsed.text[last.start : last.end]
    assert last.headings == (("Parts",) if sample.headed else ())


@each_format
def test_only_formats_with_pages_have_pages(sample: Sample) -> None:
    parsed = clean(parse(sample.data, sample.name))
    assert parsed.pages == (2 if sample.paged else None)
    assert {section.page for section in parsed.sections} == ({1, 2} if sample.paged else {None})


@each_format
def test_every_document_gets_a_title(sample: Sample) -> None:
    assert enrich(parse(sample.data, sample.name), sample.name).title in ("Frame", "frame")


@each_format
@pytest.mark.parametrize("keep", [0.25, 0.5, 0.9])
def test_a_document_that_was_cut_off_is_read_or_refused_with_an_error_of_ours(sample: Sample, keep: float) -> None:
    cut = sample.data[: int(len(sample.data) * keep)]
    try:
        assert parse(cut, sample.name).text
    except DocumentError as error:
        assert str(error)  # noqa: PT017 - either outcome is right, a foreign error is not


@each_format
@given(st.data())
@settings(max_examples=12, derandomize=True)  # damage that ends the process would end the run
def test_a_damaged_document_is_read_or_refused_with_an_error_of_ours(sample: Sample, draw: st.DataObject) -> None:
    """Damage inside an archive is packed again, or its checksum would give it away before the parser sees it."""
    if sample.data.startswith(b"PK"):
        name = draw.draw(st.sampled_from(entries(sample.data)))
        inside = draw.draw(damaged(entry(sample.data, name)))
        data = altered(sample.data, {name: inside})
    else:
        data = draw.draw(damaged(sample.data))
    with suppress(DocumentError):
        assert enrich(clean(parse(data, sample.name)), sample.name).title


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.json", "a.pdf", "a.xlsx", "a.docx", "a.doc", "a"])
@each_format
def test_a_wrong_ending_misleads_nobody(sample: Sample, name: str) -> None:
    """Only among plain texts, which may be anything, does the ending have a say."""
    if sample.media_type not in (PLAIN, MARKDOWN, CSV):
        assert classify(sample.data, name) in (sample.media_type, JSON if sample.media_type == JSON_LINES else None)


@given(st.binary(max_size=2000), st.sampled_from([b"", *BEGINNINGS]))
def test_any_bytes_are_read_or_refused_with_an_error_of_ours(data: bytes, beginning: bytes) -> None:
    with suppress(DocumentError):
        clean(parse(beginning + data, "a"))


@pytest.mark.parametrize("data", [b"", b" \r\n\t ", b"\xef\xbb\xbf \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.pdf", "a.html"])
def test_nothing_but_whitespace_is_an_empty_document(data: bytes, name: str) -> None:
    with pytest.raises(EmptyDocument):
        parse(data, name)


@pytest.mark.parametrize("data", [b"<html><body><script>let a = 1</script></body></html>", word(("Normal", " "))])
def test_a_document_without_text_is_empty_whatever_its_size(data: bytes) -> None:
    with pytest.raises(EmptyDocument):
        parse(data, "a")


def test_a_pdf_of_drawings_says_that_nothing_was_recognised() -> None:
    with pytest.raises(NoTextLayer, match=r"1 page .*no text layer, and text recognition found no text"):
        parse(drawn_pdf(), "a.pdf")


def test_thousands_of_empty_pages_are_refused_before_their_layout_is_read() -> None:
    with pytest.raises(NoTextLayer, match="1500 pages"):
        parse(pdf([[]] * 1500), "a.pdf")


def test_a_pdf_that_needs_a_password_says_so() -> None:
    with pytest.raises(EncryptedDocument, match="password"):
        parse(pdf([["Secret."]], password="open sesame"), "a.pdf")


def test_a_pdf_that_anyone_may_open_is_read_although_it_is_protected() -> None:
    assert "Secret." in parse(pdf([["Secret."]], password=""), "a.pdf").text


def test_an_encrypted_office_document_says_so() -> None:
    with pytest.raises(EncryptedDocument, match="password"):
        parse(encrypted_office(), "a.docx")


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"%PDF-1.7\nnothing more", "a.pdf"), (b"PK\x03\x04nothing more", "a.docx")],
)
def test_a_broken_document_says_that_it_is_broken(data: bytes, name: str) -> None:
    with pytest.raises(CorruptDocument, match="broken"):
        parse(data, name)


def test_a_word_document_whose_inside_is_broken_says_so() -> None:
    with pytest.raises(CorruptDocument, match="Word document is broken"):
        parse(zipped({"word/document.xml": "x", "[Content_Types].xml": "x"}), "a.docx")


def test_a_word_document_that_unpacks_to_too_much_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(DocumentTooLarge, match="more than 100 bytes"):
        parse(word(("Normal", "small")), "a.docx")


@pytest.mark.parametrize(
    ("data", "called"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99) + "PowerPoint Document".encode("utf-16-le"), "old PowerPoint"),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "x"}), "OpenDocument"),
        (zipped({"Index/Document.iwa": "x"}), "Pages, Numbers or Keynote"),
        (zipped({"a.txt": "x"}), "ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100) + "WordDocument".encode("utf-16-le"), "old Word document"),
        (bytes(range(256)) * 4, "binary data"),
        (b"{\\rtf1 hello}", "RTF"),
    ],
)
def test_what_is_not_supported_is_named_and_told_what_is(data: bytes, called: str) -> None:
    with pytest.raises(UnsupportedFormat, match=rf"{called}.*supported are PDF, Word.*convert"):
        parse(data, "file")


def test_a_declared_media_type_is_final() -> None:
    text = "%PDF-1.7 <!doctype html> are how such files begin"
    assert parse(text.encode(), "note", "text/plain").text == text


@pytest.mark.parametrize(
    "text", ["a\r\nb\rc\n", "tab\there ", "Zoë\u2014naïve \u201cquotes\u201d", "🚲 bike\n\n\n\nspaced  out\n", "\n x"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.json", "a.csv", "a"])
def test_plain_text_and_markdown_stay_as_they_came(text: str, name: str) -> None:
    assert clean(parse(text.encode(), name)).text == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "latin-1"])
def test_text_is_decoded_whatever_its_encoding(encoding: str) -> None:
    text = "Größere Fahrräder über 5 kg: naïve Café-Gäste"
    assert parse(text.encode(encoding), "a.txt").text == text


def test_a_page_is_decoded_as_it_declares() -> None:
    page = '<html><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1251"></head><p>Привет</p>'
    assert parse(page.encode("cp1251"), "a.html").text == "Привет"


def test_a_letter_with_headers_is_no_mail() -> None:
    assert classify(b"From: Ann\nTo: Bob\nDate: Monday\n\nHello", "memo.txt") == PLAIN


def test_markdown_that_begins_with_a_tag_is_still_markdown() -> None:
    assert classify(b'<p align="center">Logo</p>\n\n# Title', "README.md") == MARKDOWN
