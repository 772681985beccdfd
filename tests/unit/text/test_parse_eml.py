from __future__ import annotations

import base64

import pytest

from documents import eml, msg, nested_eml
from ragworks.errors import DocumentTooLarge, EncryptedDocument
from ragworks.text import parse_eml
from ragworks.text.clean import clean
from ragworks.text.parse import parse
from ragworks.types import Parsed

HEAD = b"From: a@b.org\nSubject: S\nMIME-Version: 1.0\n"


def read(data: bytes) -> Parsed:
    return clean(parse(data, "a.eml"))


def multipart(kind: str, *parts: bytes) -> bytes:
    body = b"".join(b"--x\n" + part + b"\n" for part in parts)
    return HEAD + f'Content-Type: multipart/{kind}; boundary="x"\n\n'.encode() + body + b"--x--\n"


def typed(kind: str, body: bytes, *more: str) -> bytes:
    return "".join(f"{line}\n" for line in (f"Content-Type: {kind}", *more)).encode() + b"\n" + body


def test_the_headers_are_a_block_before_the_body() -> None:
    parsed = read(eml("Hello Bob"))
    assert parsed.text == (
        "From: Ann <ann@example.org>\nTo: Bob <bob@example.org>\nDate: Tue, 20 Feb 2024 10:15:00 +0100\n"
        "Subject: Frame\n\nHello Bob"
    )
    assert (parsed.title, parsed.properties["author"]) == ("Frame", "Ann <ann@example.org>")


def test_two_versions_of_a_body_are_read_once_from_the_richer_one() -> None:
    text = read(eml("The bell is cheap.", html="<h1>Bell</h1><p>The bell is <b>cheap</b>.")).text
    assert text.endswith("\n\n# Bell\n\nThe bell is cheap.")
    assert text.count("bell is cheap") == 1


def test_a_page_of_pictures_gives_way_to_its_plain_version() -> None:
    text = read(eml("Ten words that say what the picture in it shows.", html="<img src=a.png>Look")).text
    assert text.endswith("what the picture in it shows.")
    assert "Look" not in text


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("iso-8859-8-i", "שלום עולם"),
        ("iso-2022-jp", "自転車のフレーム"),
        ("utf-7", "Größe"),
        ("windows-1251", "Привет, мир"),
        ("no-such-charset", "plain"),
    ],
)
def test_a_body_is_decoded_as_it_declares(charset: str, text: str) -> None:
    known = "iso-8859-8" if charset == "iso-8859-8-i" else charset
    data = text.encode(known if charset != "no-such-charset" else "ascii")
    body = typed(f"text/plain; charset={charset}", base64.encodebytes(data), "Content-Transfer-Encoding: base64")
    assert read(HEAD + body).text.endswith(f"\n\n{text}")


def test_an_encoded_subject_is_readable() -> None:
    data = b"From: a@b.org\nSubject: =?utf-8?B?R3LDtsOfZQ==?=\nMessage-ID: <1@b>\n\nx"
    assert read(data).title == "Größe"


def test_every_attachment_stands_under_its_name() -> None:
    parsed = read(eml("See both.", attached=[("one.md", b"# Frame\n\nsteel"), ("two.txt", b"nine euros")]))
    sections = [(parsed.text[one.start : one.end], one.headings) for one in parsed.sections[1:]]
    assert sections == [
        ("# one.md", ("one.md",)),
        ("# Frame\n\nsteel", ("one.md", "Frame")),
        ("# two.txt\n\nnine euros", ("two.txt",)),
    ]


def test_an_attachment_that_cannot_be_read_costs_only_itself_and_is_named() -> None:
    parsed = read(eml("See both.", attached=[("bad.pdf", b"%PDF-1.7 no more"), ("good.txt", b"nine euros")]))
    assert parsed.text.endswith("# good.txt\n\nnine euros")
    assert [warning.split(": ")[:2] for warning in parsed.warnings] == [
        ["bad.pdf", "the PDF is broken and cannot be opened"]
    ]


def test_messages_are_read_within_messages_of_either_format() -> None:
    inner = msg("Innermost.", subject="Inner", attached=[("z.txt", b"The last.")])
    text = read(eml("Outer.", attached=[("inner.msg", inner)])).text
    assert text.index("Outer.") < text.index("# inner.msg") < text.index("Innermost.") < text.index("The last.")


def test_messages_nested_too_deep_are_left_out_with_a_warning() -> None:
    parsed = read(nested_eml(8))
    assert "Subject: 5" in parsed.text
    assert "innermost" not in parsed.text
    assert parsed.warnings == ("1 / 2 / 3 / 4 / 5 / 6: messages are read 5 levels deep, this one lies deeper",)


def test_a_thousand_messages_within_one_another_are_refused() -> None:
    with pytest.raises(DocumentTooLarge, match="parts within parts"):
        read(nested_eml(1000))


def test_a_message_of_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_eml, "MAX_PARTS", 10)
    with pytest.raises(DocumentTooLarge, match="more than 10 parts"):
        read(multipart("mixed", *[typed("text/plain", b"x")] * 20))


@pytest.mark.parametrize(
    "data",
    [
        multipart(
            "encrypted", typed("application/pgp-encrypted", b"Version: 1"), typed("application/octet-stream", b"?")
        ),
        HEAD + typed("application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", b"MIIB"),
        HEAD + typed("text/plain", b"-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n"),
    ],
)
def test_an_encrypted_message_says_so(data: bytes) -> None:
    with pytest.raises(EncryptedDocument, match="decrypt it"):
        read(data)


def test_a_signature_is_no_attachment() -> None:
    parsed = read(multipart("signed", typed("text/plain", b"Signed text."), typed("application/pgp-signature", b"iQ")))
    assert parsed.text.endswith("Signed text.")
    assert parsed.warnings == ()


def test_small_pictures_within_the_text_are_no_attachments() -> None:
    picture = typed("image/png; name=logo.png", base64.encodebytes(bytes(300)), "Content-Transfer-Encoding: base64")
    assert read(multipart("related", typed("text/html", b"<p>Text"), picture)).warnings == ()


@pytest.mark.parametrize(
    "header",
    [
        b"To: " + b"x@y.org, " * 100_000,
        b"Content-Type: text/plain; " + b"; ".join(b"a*%d=x" % number for number in range(20_000)),
        b"Content-Type: text/plain; charset=" + b"(" * 100_000,
    ],
)
def test_a_header_that_the_library_cannot_bear_is_cut(header: bytes) -> None:
    """Understanding the parameters of the second one took it 12 s; the third ran out of stack."""
    parsed = read(b"From: a@b.org\n" + header + b"\nMessage-ID: <1@b>\n\nHello")
    assert len(parsed.text) < 12_000
    assert parsed.text.endswith("Hello")


def test_a_long_file_name_is_cut() -> None:
    assert max(len(one.headings[-1]) for one in read(eml("", attached=[("a" * 5000, b"x")])).sections[1:]) == 200


@pytest.mark.parametrize(
    "broken",
    [
        b'Content-Type: multipart/mixed; boundary="x"\n\n--y\n\nno such boundary',
        b"Content-Type: multipart/mixed\n\n--x\n\nno boundary at all",
        b"Content-Type: text/plain; charset*=''\xff\n\nbody",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n!!!not base64!!!",
        b"To: =?utf-8?Q?=ZZ?= <@@>, ;;;\nContent-Type: ;;;\n\nbody",
        b"Content-Disposition: attachment; filename*=utf-8''%ff%fe\n\nbody",
    ],
)
def test_broken_mime_is_read_as_far_as_it_goes(broken: bytes) -> None:
    assert "Subject: S" in read(HEAD + broken).text
