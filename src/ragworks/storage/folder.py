"""The data folder: one server at a time, and folder entries that survive a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import IO

from ragworks.errors import CannotStart, DataFolderLocked, StorageFull


def sync_folder(path: Path) -> None:
    """Make the names inside ``path`` durable; a new file is lost without it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable that something else wrote."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class DataFolder:
    """Holds the lock of a data folder from ``open`` to ``close``. The lock dies with the process, however it dies."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Create the folder and take its lock. Raises CannotStart, DataFolderLocked, StorageFull."""
        try:
            for folder in (self.path, self.blobs, self.index, self.uploads):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+", encoding="utf-8")
        except (FileExistsError, NotADirectoryError) as error:
            raise CannotStart(f"{self.path} is not a folder; give --data a folder, new or existing") from error
        except OSError as error:
            raise StorageFull(
                f"cannot use {self.path} as data folder: {error}; give --data a writable folder"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise DataFolderLocked(
                f"data folder {self.path} is in use by {self._holder()}; stop it, talk to it with --url, or give "
                "--data another folder"
            ) from error
        self._lock = lock
        with contextlib.suppress(OSError):  # whose it is helps people; a full disk has no room for it
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        for leftover in self.uploads.iterdir():
            leftover.unlink(missing_ok=True)
        sync_folder(self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def database(self) -> Path:
        return self.path / "ragworks.db"

    @property
    def events(self) -> Path:
        return self.path / "events.db"

    @property
    def queries(self) -> Path:
        return self.path / "queries.db"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def uploads(self) -> Path:
        """Bytes on their way in; emptied at every start."""
        return self.path / "tmp"

    def _holder(self) -> str:
        try:
            server = json.loads((self.path / "server.json").read_text(encoding="utf-8"))
            return f"the server at {server['url']} (process {server['pid']})"
        except (OSError, ValueError, KeyError):
            pid = (self.path / "lock").read_text(encoding="utf-8").strip()
            return f"process {pid}" if pid else "another process"
