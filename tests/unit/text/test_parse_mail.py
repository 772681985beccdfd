from __future__ import annotations

import pytest

from ragworks.errors import UnsupportedFormat
from ragworks.text import parse_mail as mail
from ragworks.text.assemble import Piece
from ragworks.text.parse_mail import Attachment, Message, parse_mail
from ragworks.types import Parsed, Section


def opened(data: bytes, name: str) -> Parsed | Message:
    if name.endswith(".bad"):
        raise UnsupportedFormat("never heard of it")
    text = data.decode()
    return Parsed(text, (Section(0, len(text), page=7),), "text/plain", warnings=("a page is missing",))


def of(*names: str) -> Message:
    return Message({"Subject": "S"}, (), tuple(Attachment(name, name.encode) for name in names))


def test_what_an_attachment_warns_of_names_it() -> None:
    assert parse_mail(of("a.txt", "b.bad"), "message/rfc822", opened).warnings == (
        "a.txt: a page is missing",
        "b.bad: never heard of it",
    )


def test_pages_of_an_attachment_are_not_pages_of_the_message() -> None:
    assert {one.page for one in parse_mail(of("a.txt"), "message/rfc822", opened).sections} == {None}


def test_an_attachment_that_fails_in_any_way_costs_only_itself() -> None:
    def fail() -> bytes:
        raise KeyError("stream")

    message = Message(
        {"Subject": "S"}, (Piece("body"),), (Attachment("a.txt", fail), Attachment("b.txt", lambda: b"b"))
    )
    parsed = parse_mail(message, "message/rfc822", opened)
    assert parsed.warnings[0] == "a.txt: 'stream'"
    assert parsed.text == "Subject: S\n\nbody\n\n# b.txt\n\nb"


def test_running_out_of_memory_is_no_attachments_failure() -> None:
    def starve() -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        parse_mail(Message({}, (), (Attachment("a", starve),)), "message/rfc822", opened)


def test_attachments_beyond_the_limit_are_left_out_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MAX_ATTACHMENTS", 2)
    parsed = parse_mail(of("a", "b", "c", "d"), "message/rfc822", opened)
    assert parsed.text.endswith("# b\n\nb")
    assert parsed.warnings[-1] == "c: this and what follows is not read: 2 attachments of a message are"


def test_attachments_after_too_much_text_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MAX_CHARACTERS", 10)
    parsed = parse_mail(of("long enough", "more"), "message/rfc822", opened)
    assert parsed.warnings[-1] == "more: not read: 10 characters of text are taken from a message"


def test_sealed_parts_beside_a_readable_body_are_a_warning() -> None:
    parsed = parse_mail(Message({}, (Piece("readable"),), sealed=True), "message/rfc822", opened)
    assert parsed.warnings == ("its encrypted parts are not read",)
