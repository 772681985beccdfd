"""What a folder holds now: which files, their content hashes, what could not be looked at; and when to look again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import watchfiles

from ragworks.errors import InvalidInput
from ragworks.finding import Source, look, passing
from ragworks.policies.mirroring import EVERYTHING
from ragworks.text.names import clean_name

if TYPE_CHECKING:
    from ragworks.protocols import Clock

QUIET_S = 1.0  # a file that changed within is perhaps still being written
SETTLE_S = 60.0  # for so long it may be the copy of one that is gone; then it is a log, say, which is never quiet
DEBOUNCE_MS = 400
TICK_MS = 1000
BLOCK = 1024 * 1024

Signature = tuple[int, int, int]
Identity = tuple[int, int]


@dataclass(slots=True)
class _Known:
    """What a file was when it was last looked at, and since when it is that; ``content_hash`` once it was read.

    ``unread_since`` is when its bytes became unknown.
    """

    signature: Signature
    since: float
    unread_since: float
    content_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the folder. ``restless``: a file may still be being written, so look again.

    ``settling``: such a file appeared just now, and may come to hold what one held that is gone.
    """

    files: dict[str, str | None]
    sources: dict[str, Source]
    unseen: frozenset[str]
    troubles: tuple[str, ...]
    restless: bool
    settling: bool


class FolderLook:
    """Looks at one folder, and remembers what it saw, so that it reads only what has changed. Blocks: for a thread.

    ``look`` is given the names of the documents that came from the folder.
    """

    def __init__(self, folder: Path, data_folder: Path, clock: Clock) -> None:
        self._folder, self._data_folder, self._clock = folder, data_folder.resolve(), clock
        self._known: dict[str, _Known] = {}
        self._root: Identity | None = None  # the folder when it last held files
        self._first = True

    def identity(self) -> Identity | None:
        """Which folder the path leads to now: another one after a disk was unmounted or a link was turned."""
        try:
            found = os.stat(self._folder)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def look(self, documents: Collection[str]) -> Seen:
        root = self.identity()
        found, skipped = look(self._folder, self._data_folder)
        unseen = {self._place(one.path) for one in skipped if one.unseen}
        troubles = [f"skipped: {one.path}: {one.reason}" for one in skipped]
        files: dict[str, str | None] = {}
        unread: list[float] = []
        for one in found:
            try:
                files[one.name] = self._content(one)
                if files[one.name] is None:
                    unread.append(self._known[one.name].unread_since)
            except OSError as error:  # also when it was deleted just now: the next look will not find it
                files[one.name] = None
                troubles.append(f"skipped: {one.path}: {error.strerror or error}")
        self._known = {name: one for name, one in self._known.items() if name in files}
        if root is None or root != self.identity():
            unseen.add(EVERYTHING)
            troubles = ["the folder is gone; its documents stay until it is back"]
        elif not files and documents and root != self._root:
            # What an unmounted disk leaves. Emptied while it was watched, it would be the folder that held files.
            unseen.add(EVERYTHING)
            troubles.append("the folder is empty, which it was not before; its documents stay until it holds a file")
        else:
            self._first = False
            self._root = root if files else self._root
        settling = any(self._clock.monotonic() - since < SETTLE_S for since in unread)
        sources = {one.name: one for one in found}
        return Seen(files, sources, frozenset(unseen), tuple(troubles), restless=bool(unread), settling=settling)

    def _content(self, source: Source) -> str | None:
        """The hash of a file's bytes; None while it may still be being written."""
        signature, modified = _signature(source.path)
        known = self._known.get(source.name)
        if known is None or known.signature != signature:
            now = self._clock.monotonic()
            unread_since = now if known is None or known.content_hash else known.unread_since
            known = self._known[source.name] = _Known(signature, now, unread_since)
        if known.content_hash is None and self._quiet(known, modified):
            content_hash = _hashed(source.path)
            if _signature(source.path)[0] == signature:
                known.content_hash = content_hash
        return known.content_hash

    def _quiet(self, known: _Known, modified: float) -> bool:
        """At the first look everything is, as it is for `ragworks ingest`; what changes then is noticed."""
        waited_s = max(self._clock.monotonic() - known.since, self._clock.now() - modified)
        return self._first or waited_s >= QUIET_S

    def _place(self, path: str) -> str:
        """What documents from ``path`` are called, or begin with."""
        try:
            return clean_name(Path(path).relative_to(self._folder).as_posix())
        except (ValueError, InvalidInput):
            return EVERYTHING

    def relevant(self, path: Path) -> bool:
        """Whether a change there can change what the folder holds: its own data folder changes all the time."""
        try:
            parts = path.relative_to(self._folder).parts
        except ValueError:
            return True
        return not any(map(passing, parts)) and not path.is_relative_to(self._data_folder)


@asynccontextmanager
async def noticing_changes(
    folder: Path, relevant: Callable[[Path], bool], on_failure: Callable[[str], None]
) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever something relevant below the folder has changed.

    It is set once at the beginning, for what changed before the operating system listened. Where the system does not
    tell of changes, ``on_failure`` hears why, and the event stays as it is.
    """
    loop, news, stop = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def listen() -> None:
        try:
            while not stop.is_set():
                if not _listen(folder, relevant, lambda: loop.call_soon_threadsafe(news.set), stop):
                    stop.wait(TICK_MS / 1000)
        except (OSError, RuntimeError) as error:
            loop.call_soon_threadsafe(on_failure, str(error))

    # A thread of its own: it is taken for as long as the folder is watched.
    listener = threading.Thread(target=listen, name=f"watch {folder}", daemon=True)
    listener.start()
    try:
        yield news
    finally:
        stop.set()
        await asyncio.shield(asyncio.to_thread(listener.join))


def _listen(folder: Path, relevant: Callable[[Path], bool], tell: Callable[[], object], stop: threading.Event) -> bool:
    """Tell of changes until stopped, or until the folder is gone; False if it was not there.

    Who listens to a folder that was deleted hears nothing of one made in its place, which often has its inode too.
    """
    if not folder.exists():  # watchfiles would listen to nothing, and say nothing
        return False
    listening = False
    for changes in watchfiles.watch(
        folder,
        watch_filter=lambda change, path: path == str(folder) or relevant(Path(path)),
        debounce=DEBOUNCE_MS,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        if changes or not listening:
            tell()
        listening = True
        if (watchfiles.Change.deleted, str(folder)) in changes:
            break
    return True


def _signature(path: Path) -> tuple[Signature, float]:
    """What changes when a file is written, and when that was."""
    found = path.stat()
    return (found.st_mtime_ns, found.st_size, found.st_ino), found.st_mtime


def _hashed(path: Path) -> str:
    """As ``storage/blobs.py`` names the bytes."""
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
