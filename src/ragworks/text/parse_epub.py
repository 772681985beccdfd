"""E-books to sections: the chapters of the spine in order, under the path that the table of contents gives them."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ragworks.errors import CorruptDocument, EncryptedDocument
from ragworks.text.archive import opened, unpacked
from ragworks.text.assemble import Piece, assemble, pieces_of
from ragworks.text.decode import declared_charset, decode
from ragworks.text.parse_html import parse_html
from ragworks.text.xml import described, local, part, root
from ragworks.types import Parsed

MEDIA_TYPE = "application/epub+zip"
_ENCRYPTION, _CONTAINER = "META-INF/encryption.xml", "META-INF/container.xml"
_PROPERTIES = {"title": ("title",), "author": ("creator",), "language": ("language",), "created": ("date",)}
_PAGES = (".xhtml", ".html", ".htm", ".xml")
_HEAD_END = re.compile(r"</head\s*>", re.IGNORECASE)
# XHTML may close any element in its tag; HTML takes that for an opening, and a title or script for one without end.
_CLOSED = re.compile(r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)(\w+)([^<>]*?)/>")
# What is the chrome of a page is text in a book: notes are asides, chapters have headers.
_TEXTUAL = re.compile(r"<(/?)(?:aside|header|footer|article|main)\b", re.IGNORECASE)

Path = tuple[str, ...]


def parse_epub(data: bytes) -> Parsed:
    """The book's text. Raises CorruptDocument, EncryptedDocument or DocumentTooLarge."""
    archive = opened(data)
    package = _package_name(archive)
    book = _Book(archive, package)
    properties = described(next((one for one in book.package if local(one) == "metadata"), None), _PROPERTIES)
    title = properties.pop("title", None)
    pieces = list(book.pieces())
    if not pieces and book.warnings:
        raise CorruptDocument(f"the e-book is broken and cannot be read: {book.warnings[0]}")
    return assemble(pieces, MEDIA_TYPE, title=title, properties=properties, warnings=tuple(book.warnings))


def _package_name(archive: zipfile.ZipFile) -> str:
    """The entry that describes the book."""
    container = part(archive, _CONTAINER)
    named: list[str] = [one.get("full-path", "") for one in _all(container, "rootfile")]
    named += [name for name in archive.namelist() if name.endswith(".opf")]
    found = next((name for name in named if name in archive.namelist()), None)
    if found is None:
        raise CorruptDocument("the e-book is broken and cannot be read: nothing says which parts it has")
    return found


class _Book:
    """The parts of a book by their names in the archive; one that is missing or broken costs itself and a warning."""

    def __init__(self, archive: zipfile.ZipFile, package: str) -> None:
        self._archive = archive
        self._names = frozenset(archive.namelist())
        self._folder = posixpath.dirname(package)
        self.package = root(self._read(package))
        self.warnings: list[str] = []
        items = list(_all(self.package, "item"))
        self._items = {item.get("id"): self._name(item.get("href", ""), self._folder) for item in items}
        # Each once: a spine that names a long chapter a million times is an attack.
        self._spine = dict.fromkeys(self._items.get(one.get("idref"), "") for one in _all(self.package, "itemref"))
        self._contents = next((self._items[one.get("id")] for one in items if _is_contents(one)), "")
        self._refuse_if_locked()

    def pieces(self) -> Iterator[Piece]:
        paths = self._paths()
        path: Path = ()
        for name in self._spine:
            if name == self._contents and len(self._spine) > 1:
                continue
            path = paths.get(name, path)
            try:
                chapter = parse_html(_as_html(self._read(name)))
            except Exception as error:  # one bad chapter of many
                self.warnings.append(f"the chapter {name!r} was left out: {error}")
                continue
            yield from (Piece(one.text, _below(path, one.headings), None, one.kind) for one in pieces_of(chapter))

    def _read(self, name: str) -> bytes:
        if name not in self._names:
            raise CorruptDocument("it is missing")
        return b"".join(unpacked(self._archive, name))

    def _name(self, href: str, folder: str) -> str:
        """The entry that a link leads to, as it may be written in it."""
        name = posixpath.normpath(posixpath.join(folder, href.partition("#")[0]))
        return name if name in self._names else unquote(name)

    def _refuse_if_locked(self) -> None:
        """Fonts may be garbled in any book; chapters that are encrypted are a lock."""
        listing = part(self._archive, _ENCRYPTION)
        locked = {unquote(one.get("URI", "")) for one in _all(listing, "CipherReference")}
        if locked & self._spine.keys() or any(name.lower().endswith(_PAGES) for name in locked):
            raise EncryptedDocument("the e-book is locked by its seller (DRM); only a copy without it can be read")

    def _paths(self) -> dict[str, Path]:
        """Chapter to the names that lead to it in the table of contents."""
        paths: dict[str, Path] = {}
        try:
            source = root(self._read(self._contents)) if self._contents else None
        except CorruptDocument as error:
            self.warnings.append(f"the table of contents was left out: {error}")
            return paths
        folder = posixpath.dirname(self._contents)
        for href, path in _entries(source):
            paths.setdefault(self._name(href, folder), path)
        return paths


def _is_contents(item: Any) -> bool:
    return "nav" in (item.get("properties") or "").split() or item.get("media-type") == "application/x-dtbncx+xml"


def _entries(contents: Any | None) -> Iterator[tuple[str, Path]]:
    """(link, path of names) of a table of contents, as EPUB 3 writes it (nav) or EPUB 2 (ncx)."""
    if contents is None:
        return
    points = list(_all(contents, "navPoint"))
    links = [(one, _child(one, "navLabel"), _child(one, "content")) for one in points]
    if not points:
        nav = next((one for one in _all(contents, "nav") if (_attribute(one, "type") or "toc") == "toc"), contents)
        links = [(one, _child(one, "a", "span"), _child(one, "a")) for one in _all(nav, "li")]
    labels: dict[Any, str] = {}
    for entry, label, link in links:
        name = " ".join("".join(label.itertext()).split()) if label is not None else ""
        href = link.get("src") or link.get("href") if link is not None else None
        above = [labels[one] for one in entry.iterancestors() if labels.get(one)]
        labels[entry] = name
        if href and name:
            yield href, (*reversed(above), name)


def _child(element: Any, *names: str) -> Any | None:
    return next((one for one in element if local(one) in names), None)


def _all(element: Any | None, name: str) -> Iterator[Any]:
    return (one for one in element.iter() if local(one) == name) if element is not None else iter(())


def _attribute(element: Any, name: str) -> str | None:
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def _below(path: Path, headings: Path) -> Path:
    """The chapter's own headings, under the parts of the book; without own ones the name in the table of contents."""
    return (*path[:-1], *headings) if headings else path


def _as_html(data: bytes) -> str:
    source = decode(data, declared_charset(data))
    head = _HEAD_END.search(source)
    return _TEXTUAL.sub(r"<\1section", _CLOSED.sub(r"<\1\2></\1>", source[head.end() if head else 0 :]))
