"""Original bytes, by content hash. A blob that ``put`` returned is on disk, with its name.

Between ``put`` and the commit of the row that needs it, a blob is pinned, so that no collection takes it away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import IO

from ragworks.errors import SourceUnreadable, StorageFull
from ragworks.storage.folder import sync_folder

BLOCK = 1024 * 1024
LEAST_ROOM = 32 * 1024**2  # with less, a document, its rows and its indexes may not find room


class FileBlobs:
    """Blobs as files ``ab/abcd…`` below one folder; the name is the BLAKE2b-256 of the bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pins: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._synced: set[str] = set()

    def put(self, source: bytes | str) -> tuple[str, int]:
        """Keep and pin the bytes of ``source`` (bytes, or a file's path): (content hash, size in bytes).

        Raises SourceUnreadable, StorageFull.
        """
        try:
            with _opened(source) as stream:
                return self._keep(stream)
        except OSError as error:
            raise StorageFull(f"cannot keep a document below {self._folder}: {error}") from error

    def path(self, content_hash: str) -> str:
        return str(self._folder / content_hash[:2] / content_hash)

    def unpin(self, content_hashes: Iterable[str]) -> None:
        """The rows are committed, or will never be: from here on only rows keep these blobs."""
        with self._lock:
            self._pins.subtract(content_hashes)
            self._pins = +self._pins

    def remove(self, content_hash: str) -> None:
        """Delete a blob that no row needs, unless it is pinned."""
        with self._lock:
            if content_hash not in self._pins:
                Path(self.path(content_hash)).unlink(missing_ok=True)

    def pinned(self) -> set[str]:
        with self._lock:
            return set(self._pins)

    def hashes(self) -> set[str]:
        return {file.name for file in self._folder.glob("??/*") if not file.name.startswith("new-")}

    def room(self) -> None:
        """Raises StorageFull while the disk is read-only or about full; writes nothing to find out."""
        found = os.statvfs(self._folder)
        left = found.f_bavail * found.f_frsize
        if found.f_flag & os.ST_RDONLY:
            raise StorageFull(f"the disk of {self._folder.parent} is read-only; make it writable")
        if left < LEAST_ROOM:
            raise StorageFull(f"{left // 1024**2} MiB are left on the disk of {self._folder.parent}; free space")

    def clear_unfinished(self) -> None:
        """Drop what a crash left half written."""
        for file in self._folder.glob("new-*"):
            file.unlink(missing_ok=True)

    def _keep(self, stream: IO[bytes]) -> tuple[str, int]:
        digest, size, pinned = hashlib.blake2b(digest_size=32), 0, False
        handle, temporary = tempfile.mkstemp(prefix="new-", dir=self._folder)
        try:
            with open(handle, "wb") as file:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    file.write(block)
                    size += len(block)
                file.flush()
                os.fsync(file.fileno())
            final = Path(self.path(digest.hexdigest()))
            self._make_durable(final.parent)
            with self._lock:
                self._pins[final.name] += 1
                pinned = True
                os.replace(temporary, final)
            sync_folder(final.parent)
        except BaseException:  # also on cancel: no half file may stay
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            if pinned:
                self.unpin([digest.hexdigest()])
            raise
        return digest.hexdigest(), size

    def _make_durable(self, folder: Path) -> None:
        """That a folder is there does not say that its name is on disk: another thread, or a dead server, made it."""
        if folder.name not in self._synced:
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)
            self._synced.add(folder.name)


def _opened(source: bytes | str) -> IO[bytes]:
    if not isinstance(source, str):
        return BytesIO(source)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise SourceUnreadable(f"cannot read {source!r}: {error.strerror}") from error
