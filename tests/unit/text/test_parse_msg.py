from __future__ import annotations

import pytest

from compound import compound
from documents import msg, msg_streams, word
from ragworks.errors import CorruptDocument, EncryptedDocument
from ragworks.text.clean import clean
from ragworks.text.parse import parse

ATTACHED = "__attach_version1.0_#00000000"


def test_the_headers_are_a_block_before_the_body() -> None:
    parsed = clean(parse(msg("Hello Bob"), "a.msg"))
    assert parsed.text == (
        "From: Ann <ann@example.org>\nTo: Bob <bob@example.org>\nDate: 2024-02-20T09:15:00Z\nSubject: Frame\n\n"
        "Hello Bob"
    )
    assert (parsed.title, parsed.properties) == (
        "Frame",
        {"author": "Ann <ann@example.org>", "created": "2024-02-20T09:15:00Z"},
    )


def test_a_page_is_decoded_by_the_code_page_of_the_message() -> None:
    assert parse(msg("", html="<p>Привет, мир".encode("cp1251")), "a.msg").text.endswith("Привет, мир")


def test_attachments_of_any_size_stand_under_their_names() -> None:
    attached = [
        ("long.txt", b"steel and bells " * 1000),
        ("plan.docx", word(("Heading 1", "Parts"), ("Normal", "nine"))),
    ]
    parsed = parse(msg("See both.", attached=attached), "a.msg")
    assert [one.headings for one in parsed.sections] == [(), ("long.txt",), ("plan.docx",), ("plan.docx", "Parts")]
    assert parsed.text.count("steel and bells") == 1000


def test_an_attached_office_file_does_not_make_a_message_an_office_document() -> None:
    old = compound({("WordDocument",): b"x" * 100})
    parsed = parse(msg("See the old one.", attached=[("old.doc", old)]), "a.msg")
    assert "See the old one." in parsed.text
    assert parsed.warnings[0].startswith("old.doc: the file looks like an old Word document")


def test_a_message_within_a_message_is_read() -> None:
    streams = msg_streams("Outer.", attached=[("inner.msg", b"")])
    streams |= msg_streams("Inner body.", subject="Inner", at=(ATTACHED, "__substg1.0_3701000D"))
    text = parse(compound(streams), "a.msg").text
    assert text.index("Outer.") < text.index("# inner.msg") < text.index("Date: 2024-02-20T09:15:00Z\nSubject: Inner")


def test_an_encrypted_message_says_so() -> None:
    with pytest.raises(EncryptedDocument, match="decrypt it"):
        parse(msg("", attached=[("a.bin", b"\n-----BEGIN PGP MESSAGE-----\nhQ")]), "a.msg")


def test_a_body_that_is_there_as_rich_text_only_is_a_warning() -> None:
    streams = msg_streams(subject="Rich") | {("__substg1.0_10090102",): b"LZFu" * 10}
    assert parse(compound(streams), "a.msg").warnings == (
        "the body is there as rich text (RTF) only, which is not read",
    )


def test_a_message_whose_streams_are_cut_off_is_broken() -> None:
    whole = msg("Hello Bob" * 1000)
    with pytest.raises(CorruptDocument):
        parse(whole[: len(whole) - 4000], "a.msg")


def test_a_message_whose_sectors_go_in_a_circle_is_refused() -> None:
    """The library followed them for as long as the stream claimed to be: 53 KB became 1.5 GB."""
    data = bytearray(msg("Hello", attached=[("long.txt", b"steel and bells " * 1000)]))
    entry = data.index("__substg1.0_37010102".encode("utf-16-le"))
    first = int.from_bytes(data[entry + 116 : entry + 120], "little")
    fat = 512 * (1 + int.from_bytes(data[76:80], "little"))
    data[fat + 4 * (first + 3) : fat + 4 * (first + 4)] = first.to_bytes(4, "little")
    with pytest.raises(CorruptDocument, match="circle"):
        parse(bytes(data), "a.msg")
