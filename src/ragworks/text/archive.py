"""Documents that are ZIP archives: opened in memory, and only after their true size is known."""

from __future__ import annotations

import copy
import io
import zipfile
import zlib
from collections.abc import Iterator

from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument

MAX_UNPACKED_BYTES = 512 * 1024**2
MAX_ENTRIES = 10_000
MAX_RATIO = 250
"""How far an entry of some size may unpack: text of office documents reaches 100, a bomb 1032, the most there is."""

_SMALL = 16 * 1024**2  # below this a high ratio harms nobody
_STEP = 256 * 1024
_ENDLESS = 1 << 62
_DIRECTORY_ENTRY = b"PK\x01\x02"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, IndexError)


def listed(data: bytes) -> zipfile.ZipFile:
    """The archive with its directory read and nothing unpacked. Raises CorruptDocument or DocumentTooLarge."""
    # Counted in the bytes: reading a directory of millions of entries is an attack by itself.
    if data.count(_DIRECTORY_ENTRY) > MAX_ENTRIES:
        raise DocumentTooLarge(f"the archive has more than {MAX_ENTRIES} entries, which no office document has")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except _BROKEN as error:
        raise CorruptDocument(f"the file begins like an office document or archive but is broken: {error}") from error


def opened(data: bytes) -> zipfile.ZipFile:
    """The archive, every entry of which was unpacked once, piece by piece, and proved to be sound and of bounded size.

    Archives inside it are bytes like any others. Raises CorruptDocument, EncryptedDocument or DocumentTooLarge.
    """
    archive = listed(data)
    total = 0
    for entry in archive.infolist():
        if entry.flag_bits & 1:
            raise EncryptedDocument("the document is an encrypted archive; remove its password and submit it again")
        size = 0
        for piece in _pieces(archive, entry):
            size += len(piece)
            if total + size > MAX_UNPACKED_BYTES:
                raise DocumentTooLarge(f"the document unpacks to more than {MAX_UNPACKED_BYTES} bytes, the most read")
            if size > max(_SMALL, MAX_RATIO * entry.compress_size):
                raise DocumentTooLarge(
                    f"{entry.filename!r} inside the document unpacks to more than {MAX_RATIO} times its size, as only "
                    "an archive does that is made to fill the memory"
                )
        total += size
    return archive


def unpacked(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """The bytes of one entry, in pieces of bounded size."""
    return _pieces(archive, archive.getinfo(name))


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CorruptDocument(f"{entry.filename!r} inside the document is packed in a way no office document is")
    # zipfile stops at the size that the entry claims, and would call a bomb small that claims to be.
    honest = copy.copy(entry)
    honest.file_size = _ENDLESS
    try:
        with archive.open(honest) as stream:
            while piece := stream.read(_STEP):
                yield piece
    except _BROKEN as error:
        raise CorruptDocument(f"{entry.filename!r} inside the document is broken: {error}") from error
