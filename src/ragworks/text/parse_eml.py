"""Internet mail (RFC 5322, MIME) to a Message."""

from __future__ import annotations

import email
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Any

from ragworks.errors import DocumentTooLarge
from ragworks.text.assemble import Piece
from ragworks.text.decode import decode
from ragworks.text.parse_mail import (
    AS_RICH,
    LONGEST_HEADER,
    LONGEST_NAME,
    SEALS,
    Attachment,
    Message,
    body_pieces,
    file_name,
    is_decoration,
    is_sealed,
    printable,
    words_in,
)

MAX_PARTS = 2_000
_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})


class _Bounded(EmailPolicy):
    """The library's policy for headers that it can bear: one of a megabyte takes it minutes, a broken one anywhere."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        try:
            return super().header_fetch_parse(name, value[:LONGEST_HEADER])
        except Exception:  # the library lets errors of every kind through
            return value[:LONGEST_HEADER]


def read_eml(data: bytes) -> Message:
    """The message. Raises DocumentTooLarge when it has too many parts, or parts nested too deeply."""
    policy = _Bounded(message_factory=_counting())
    try:
        parsed: Any = email.message_from_bytes(data.removeprefix(b"\xef\xbb\xbf").lstrip(), policy=policy)
    except RecursionError as error:
        raise DocumentTooLarge("the message holds parts within parts, hundreds deep; submit the inner ones") from error
    return _message(parsed)


def _counting() -> Callable[..., EmailMessage]:
    made = 0

    def part(*args: object, **kwargs: object) -> EmailMessage:
        nonlocal made
        made += 1
        if made > MAX_PARTS:
            raise DocumentTooLarge(f"the message has more than {MAX_PARTS} parts, that many are read; split it")
        return EmailMessage(*args, **kwargs)  # type: ignore[arg-type]

    return part


def _message(parsed: EmailMessage) -> Message:
    walk = _Parts()
    body = tuple(walk.body(parsed))
    headers = {name: value for name in _SHOWN if (value := _header(parsed, name))}
    return Message(headers, body, tuple(walk.attachments), walk.sealed)


def _header(part: EmailMessage, name: str) -> str:
    return printable(str(part[name] or ""))


class _Parts:
    """One pass over the parts of a message: the body is returned, attachments are gathered."""

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.sealed = False

    def body(self, part: EmailMessage, *, within_page: bool = False) -> Iterator[Piece]:
        kind = part.get_content_type()
        inside: Any = part.get_payload()
        if kind == "multipart/alternative" and isinstance(inside, list):
            yield from self._best(inside)
        elif kind.startswith("multipart/") and isinstance(inside, list):
            self.sealed |= kind == "multipart/encrypted"
            for child in inside:
                yield from self.body(child, within_page=kind == "multipart/related")
        elif kind == "message/delivery-status" and isinstance(inside, list):
            yield Piece("\n".join(_text_of_headers(block) for block in inside))
        elif kind in ("text/plain", "text/html") and not _is_file(part):
            yield from self._text(part, kind)
        else:
            self._attach(part, kind, inside, within_page)

    def _best(self, versions: list[EmailMessage]) -> list[Piece]:
        """The richest version; of equals the last, which is the sender's first choice."""
        best: list[Piece] = []
        for version in versions:
            if version.get_content_maintype() != "text" or version.get_content_subtype() in ("plain", "html"):
                pieces = list(self.body(version))
                if words_in(pieces) >= AS_RICH * words_in(best):
                    best = pieces
        return best

    def _text(self, part: EmailMessage, kind: str) -> tuple[Piece, ...]:
        text = _decoded(part)
        if is_sealed(text[:1000].encode("utf-8", "replace")):
            self.sealed = True
            return ()
        return body_pieces(text, None) if kind == "text/html" else body_pieces(None, text)

    def _attach(self, part: EmailMessage, kind: str, inside: Any, within_page: bool) -> None:
        if kind in SEALS:
            self.sealed = True
        elif kind == "message/rfc822" and isinstance(inside, list) and inside:
            nested = inside[0]
            name = _file_name(part) or _header(nested, "Subject")[:LONGEST_NAME] or "message"
            self.attachments.append(Attachment(name, lambda: _message(nested)))
        elif kind not in _SIGNATURES and not (
            within_page and isinstance(inside, str) and is_decoration(kind, len(inside) * 3 // 4)
        ):
            name = _file_name(part) or f"attachment {len(self.attachments) + 1}"
            self.attachments.append(Attachment(name, lambda: _bytes(part)))


def _is_file(part: EmailMessage) -> bool:
    return part.get_content_disposition() == "attachment" or _file_name(part) != ""


def _file_name(part: EmailMessage) -> str:
    try:
        name = part.get_filename() or ""
    except Exception:  # as in _Bounded
        name = ""
    return file_name(name)


def _bytes(part: EmailMessage) -> bytes:
    if part.get_content_maintype() == "text" and part.get_content_charset():
        return _decoded(part).encode()
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decoded(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset()
    if charset and data.isascii():  # UTF-7 and the Japanese encodings of mail look like ASCII
        try:
            return data.decode(charset)
        except (LookupError, ValueError):
            pass
    return decode(data, charset)


def _text_of_headers(block: object) -> str:
    items = block.raw_items() if isinstance(block, EmailMessage) else ()
    return "\n".join(f"{name}: {' '.join(str(value).split())}" for name, value in items)
