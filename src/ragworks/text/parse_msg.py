"""Outlook messages (MS-OXMSG, a compound file) to a Message."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from olefile import OleFileIO

from ragworks.errors import CorruptDocument
from ragworks.text.compound import Compound
from ragworks.text.decode import decode
from ragworks.text.parse_mail import (
    LONGEST_HEADER,
    SEALS,
    Attachment,
    Message,
    body_pieces,
    file_name,
    is_decoration,
    is_sealed,
)

_PROPERTIES = "__properties_version1.0"
_ATTACHED, _RECIPIENT = "__attach_version1.0_#", "__recip_version1.0_#"
_NESTED = "__substg1.0_3701000D"
_UTF16, _BYTES, _BINARY = "001F", "001E", "0102"
# Where the fixed properties of a storage begin: at the root, in a message within it, in a recipient or an attachment.
_ROOT, _INNER, _LEAF = 32, 24, 8
_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER, _SENDER_SMTP, _SENDER_ADDRESS, _SHOWN_TO, _SHOWN_CC = "0C1A", "5D01", "0C1F", "0E04", "0E03"
_NAME, _SMTP, _ADDRESS = "3001", "39FE", "3003"
_LONG_NAME, _SHORT_NAME, _DATA, _MIME, _CONTENT_ID = "3707", "3704", "3701", "370E", "3712"
_SENT, _DELIVERED, _CODE_PAGE, _RECIPIENT_KIND = 0x00390040, 0x0E060040, 0x3FFD0003, 0x0C150003
_TO, _CC = 1, 2


def is_msg(data: bytes) -> bool:
    """Whether a compound file is an Outlook message."""
    try:
        return bool(OleFileIO(io.BytesIO(data)).exists(_PROPERTIES))
    except Exception:  # broken in whatever way: then it is not known to be one
        return False


def read_msg(data: bytes) -> Message:
    """The message. Raises CorruptDocument, or whatever the library raises on a broken file."""
    Compound(data)  # refuses sectors in a circle, which the library follows for as long as a stream claims to be
    ole = OleFileIO(io.BytesIO(data))
    return _message(_Storage(ole, (), _ROOT, tuple(tuple(path) for path in ole.listdir(streams=True, storages=True))))


class _Storage:
    """One folder of the compound file: a message, a recipient or an attachment, and its properties."""

    def __init__(
        self, ole: OleFileIO, path: tuple[str, ...], fixed_at: int, entries: tuple[tuple[str, ...], ...]
    ) -> None:
        self._ole = ole
        self._path = path
        self._entries = entries
        self._fixed = self._stream(_PROPERTIES)[fixed_at:]

    def text(self, tag: str) -> str:
        """A text property, empty if it is not there."""
        wide = self._stream(f"__substg1.0_{tag}{_UTF16}")
        if wide:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._stream(f"__substg1.0_{tag}{_BYTES}").rstrip(b"\0")
        return decode(narrow, f"cp{self.number(_CODE_PAGE) or 1252}") if narrow else ""

    def binary(self, tag: str) -> bytes:
        return self._stream(f"__substg1.0_{tag}{_BINARY}")

    def number(self, tag: int) -> int | None:
        value = self._fixed_value(tag)
        return int.from_bytes(value[:4], "little") if value else None

    def time(self, tag: int) -> datetime | None:
        value = self._fixed_value(tag)
        ticks = int.from_bytes(value, "little") if value else 0  # of 100 ns since 1601
        # Beyond the year 9000 a date is damage, and datetime would overflow.
        return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10) if 0 < ticks < 2**61 else None

    def inside(self, prefix: str, fixed_at: int) -> Iterator[_Storage]:
        depth = len(self._path)
        for path in self._entries:
            if len(path) == depth + 1 and path[:depth] == self._path and path[-1].startswith(prefix):
                yield _Storage(self._ole, path, fixed_at, self._entries)

    def _stream(self, name: str) -> bytes:
        path = [*self._path, name]
        if self._ole.get_type(path) != 2:  # a stream
            return b""
        data = bytes(self._ole.openstream(path).read())
        if len(data) < self._ole.get_size(path):  # the library hands out what is left of a stream without a word
            raise CorruptDocument(f"the Outlook message is cut off: {len(data)} bytes of {name} are left")
        return data

    def _fixed_value(self, tag: int) -> bytes | None:
        for wanted, value in struct.iter_unpack("<I4x8s", self._fixed[: len(self._fixed) // 16 * 16]):
            if wanted == tag:
                return bytes(value)
        return None


def _message(at: _Storage) -> Message:
    page = at.binary(_HTML)
    code_page = at.number(0x3FDE0003)
    html = decode(page, "utf-8" if code_page == 65001 else f"cp{code_page or 1252}") if page else at.text(_HTML)
    plain = at.text(_BODY)
    sealed = is_sealed(plain[:1000].encode("utf-8", "replace"))
    body = () if sealed else body_pieces(html, plain)
    attachments = []
    for number, one in enumerate(at.inside(_ATTACHED, _LEAF), start=1):
        sealed |= one.text(_MIME).lower() in SEALS or is_sealed(one.binary(_DATA)[:1000])
        if not (one.text(_CONTENT_ID) and is_decoration(_kind(one), len(one.binary(_DATA)))):
            attachments.append(_attachment(one, number))
    only_rtf = not body and not sealed and at.binary(_RTF)
    warnings = ("the body is there as rich text (RTF) only, which is not read",) if only_rtf else ()
    return Message(_headers(at), body, tuple(attachments), sealed, warnings)


def _headers(at: _Storage) -> dict[str, str]:
    recipients = [(one.number(_RECIPIENT_KIND), _person(one)) for one in at.inside(_RECIPIENT, _LEAF)]
    sent = at.time(_SENT) or at.time(_DELIVERED)
    shown = {
        "From": _called(at.text(_SENDER), at.text(_SENDER_SMTP) or at.text(_SENDER_ADDRESS)),
        "To": ", ".join(person for kind, person in recipients if kind == _TO) or at.text(_SHOWN_TO),
        "Cc": ", ".join(person for kind, person in recipients if kind == _CC) or at.text(_SHOWN_CC),
        "Date": sent.strftime("%Y-%m-%dT%H:%M:%SZ") if sent else "",
        "Subject": at.text(_SUBJECT),
    }
    return {name: " ".join(value.split())[:LONGEST_HEADER] for name, value in shown.items() if value.strip()}


def _person(at: _Storage) -> str:
    return _called(at.text(_NAME), at.text(_SMTP) or at.text(_ADDRESS))


def _called(name: str, address: str) -> str:
    """``Ann <ann@example.org>``; addresses within an organisation's directory say nothing and are left out."""
    if "@" not in address or address == name:
        return name or address
    return f"{name} <{address}>" if name else address


def _kind(at: _Storage) -> str:
    name = (at.text(_LONG_NAME) or at.text(_SHORT_NAME)).lower()
    return at.text(_MIME) or ("image/" if name.endswith((".png", ".jpg", ".jpeg", ".gif", ".bmp")) else "")


def _attachment(at: _Storage, number: int) -> Attachment:
    name = at.text(_LONG_NAME) or at.text(_SHORT_NAME) or at.text(_NAME) or f"attachment {number}"
    nested = next(at.inside(_NESTED, _INNER), None)
    return Attachment(file_name(name), (lambda: at.binary(_DATA)) if nested is None else (lambda: _message(nested)))
