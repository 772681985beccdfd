"""XML from strangers: no entity is resolved, nothing is loaded, mistakes are mended as far as that is possible."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from lxml import etree

from ragworks.errors import CorruptDocument
from ragworks.text.archive import unpacked


def root(data: bytes) -> Any:
    """The root element. Raises CorruptDocument."""
    # With huge_tree off, libxml2 bounds nesting and the length of a text by itself.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, recover=True, remove_comments=True
    )
    try:
        found = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise CorruptDocument(f"an XML part of the document is broken: {error}") from error
    if found is None:
        raise CorruptDocument("an XML part of the document is broken: it has no element")
    return found


def part(archive: zipfile.ZipFile, name: str) -> Any | None:
    """The root element of an entry, or None without such an entry."""
    return root(b"".join(unpacked(archive, name))) if name in archive.namelist() else None


def require_whole(pieces: Iterable[bytes]) -> None:
    """Raises CorruptDocument for XML that does not end as it should, which some libraries wait for without end."""
    parser = etree.XMLParser(target=_Nothing(), resolve_entities=False, no_network=True, load_dtd=False)
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.close()
    except (etree.XMLSyntaxError, ValueError) as error:
        raise CorruptDocument(f"an XML part of the document is broken: {error}") from error


class _Nothing:
    """What a parser tells and nobody keeps."""

    def close(self) -> None: ...


def local(element: Any) -> str:
    """The name of an element without its namespace; nothing for what is no element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def described(element: Any | None, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Key to the text of the first element that has one of its local names, in their order."""
    texts: dict[str, str] = {}
    for one in element.iter() if element is not None else ():
        text = " ".join((one.text or "").split())
        if text:
            texts.setdefault(local(one), text)
    found = {key: next((texts[name] for name in wanted if name in texts), "") for key, wanted in names.items()}
    return {key: text for key, text in found.items() if text}
