"""A message, whatever its file format, to sections: its headers, its body once, every attachment under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ragworks.errors import EncryptedDocument
from ragworks.text.assemble import Piece, assemble, pieces_of
from ragworks.text.clean import clean
from ragworks.text.parse_html import parse_html
from ragworks.types import Parsed

MAX_DEPTH = 5
MAX_ATTACHMENTS = 500
MAX_CHARACTERS = 50_000_000
LONGEST_HEADER, LONGEST_NAME = 10_000, 200
SEALS = frozenset({"application/pgp-encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})
"""Media types of parts that are encrypted, or wrapped so that they might be."""

_PGP = b"-----BEGIN PGP MESSAGE-----"
# A page that says less than this share of its plain version is a frame around pictures, and the plain one is read.
AS_RICH = 0.8
# Pictures below this size that a page shows within its text are logos, rules and counters.
_DECORATION_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Message:
    """What a reader made of a mail file. ``headers`` are readable and in the order to be shown.

    ``sealed``: parts of it are encrypted.
    """

    headers: Mapping[str, str]
    body: tuple[Piece, ...]
    attachments: tuple[Attachment, ...] = ()
    sealed: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return self.headers.get("Subject", "")


@dataclass(frozen=True, slots=True)
class Attachment:
    """``load`` gives the bytes of a file, or a message within the message; it may raise anything."""

    name: str
    load: Callable[[], bytes | Message]


Open = Callable[[bytes, str], Parsed | Message]
"""The bytes and the name of an attachment to what they hold."""


def parse_mail(message: Message, media_type: str, open_: Open) -> Parsed:
    """The message as one text; an attachment that cannot be read becomes a warning. Raises EncryptedDocument."""
    if message.sealed and not any(piece.text.strip() for piece in message.body):
        raise EncryptedDocument("the message is encrypted (PGP or S/MIME); decrypt it and submit it again")
    walk = _Walk(open_)
    pieces = list(walk.message(message, (), 0))
    properties = {"author": message.headers.get("From"), "created": message.headers.get("Date")}
    return assemble(
        pieces,
        media_type,
        title=message.subject or None,
        properties={key: value for key, value in properties.items() if value},
        warnings=tuple(walk.warnings),
    )


def body_pieces(html: str | None, plain: str | None) -> tuple[Piece, ...]:
    """The richer of two versions of one text."""
    page = tuple(pieces_of(parse_html(html))) if html else ()
    text = (Piece(plain.replace("\r\n", "\n")),) if plain and plain.strip() else ()
    return page if words_in(page) >= AS_RICH * words_in(text) else text


def words_in(pieces: Iterable[Piece]) -> int:
    return sum(len(piece.text.split()) for piece in pieces)


def file_name(path: str) -> str:
    """What an attachment is called: the last part of whatever path a program wrote."""
    return printable(path.replace("\\", "/").rsplit("/", 1)[-1])[:LONGEST_NAME]


def printable(text: str) -> str:
    """The text on one line, without lone surrogates."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def is_sealed(data: bytes) -> bool:
    """Whether the bytes are a PGP message and nothing else."""
    return data.lstrip()[: len(_PGP)] == _PGP


def is_decoration(media_type: str, size_bytes: int) -> bool:
    """Whether something shown within a message's text is too small a picture to say anything."""
    return media_type.startswith("image/") and size_bytes < _DECORATION_BYTES


@dataclass(slots=True)
class _Walk:
    """One pass over a message and all that it carries."""

    open_: Open
    warnings: list[str] = field(default_factory=list)
    attachments: int = 0
    characters: int = 0

    def message(self, message: Message, path: tuple[str, ...], depth: int) -> Iterator[Piece]:
        headers = "\n".join(f"{name}: {value}" for name, value in message.headers.items() if value)
        yield from self._counted((Piece(headers), *message.body), path)
        self._warn(path, (*message.warnings, *(["its encrypted parts are not read"] if message.sealed else [])))
        for attachment in message.attachments:
            yield from self._attachment(attachment, path, depth)

    def _attachment(self, attachment: Attachment, path: tuple[str, ...], depth: int) -> Iterator[Piece]:
        below = (*path, attachment.name)
        self.attachments += 1
        if self.attachments > MAX_ATTACHMENTS or self.characters > MAX_CHARACTERS:
            self._too_much(below)
            return
        try:
            loaded = attachment.load()
            held = self.open_(loaded, attachment.name) if isinstance(loaded, bytes) else loaded
        except MemoryError:
            raise
        except Exception as error:  # whatever an attachment does to a parser costs that attachment
            self._warn(below, [str(error) or type(error).__name__])
            return
        if isinstance(held, Message) and depth == MAX_DEPTH:
            self._warn(below, [f"messages are read {MAX_DEPTH} levels deep, this one lies deeper"])
            return
        yield Piece(f"# {attachment.name}", below)
        if isinstance(held, Message):
            yield from self.message(held, below, depth + 1)
        else:
            yield from self._counted(pieces_of(clean(held)), below)
            self._warn(below, held.warnings)

    def _counted(self, pieces: Iterable[Piece], path: tuple[str, ...]) -> Iterator[Piece]:
        """The pieces below ``path``, without page numbers: those of an attachment are not the message's."""
        for piece in pieces:
            self.characters += len(piece.text)
            yield replace(piece, headings=(*path, *piece.headings), page=None)

    def _too_much(self, path: tuple[str, ...]) -> None:
        if self.attachments <= MAX_ATTACHMENTS:
            self._warn(path, [f"not read: {MAX_CHARACTERS} characters of text are taken from a message"])
        elif self.attachments == MAX_ATTACHMENTS + 1:
            self._warn(path, [f"this and what follows is not read: {MAX_ATTACHMENTS} attachments of a message are"])

    def _warn(self, path: tuple[str, ...], warnings: Iterable[str]) -> None:
        self.warnings += [f"{' / '.join(path)}: {warning}" if path else warning for warning in warnings]
