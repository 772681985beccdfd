"""Keeps a collection up with a folder: new, changed, renamed and deleted files, also those of a time nobody watched."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import watchfiles

from ragworks.client import Client
from ragworks.errors import InvalidInput, RagworksError, ServerProblem
from ragworks.feed import Failure, Tally
from ragworks.finding import Source, look, origin_of, passing
from ragworks.policies.mirroring import EVERYTHING, Plan, plan
from ragworks.text.names import clean_name

if TYPE_CHECKING:
    from ragworks.protocols import Clock

QUIET_S = 1.0  # a file that changed within is perhaps still being written
SETTLE_S = 60.0  # for so long it may be the copy of one that is gone; then it is a log, say, which is never quiet
COMPARE_S = 600.0  # network disks and full watch limits tell of no changes
RETRY_S = 5.0
LOOK_SHARE = 0.1  # of one core, at most, for looking
DEBOUNCE_MS = 400
TICK_MS = 1000
DELETES_AT_ONCE = 8
BLOCK = 1024 * 1024

Say = Callable[[str], None]
Submit = Callable[[Sequence[Source]], Awaitable[Tally]]
"""Puts files into the collection: what became of each, once all have ended."""

Noticing = Callable[[Path, Callable[[Path], bool], Say], AbstractAsyncContextManager[asyncio.Event]]
Signature = tuple[int, int, int]


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
class _Seen:
    """One look at the folder. ``restless``: a file may still be being written, so look again.

    ``settling``: such a file appeared just now, and may come to hold what one held that is gone.
    """

    files: dict[str, str | None]
    sources: dict[str, Source]
    unseen: frozenset[str]
    troubles: tuple[str, ...]
    restless: bool
    settling: bool


@dataclass(slots=True)
class ChangeSet:
    """What one pass did. ``files`` counts those that are there, ``unchanged`` those that were in already."""

    files: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0
    failed: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone, "failed": len(self.failed)}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count or word != "failed")


class FolderWatch:
    """Follows one folder; ``run`` returns only when cancelled. Deletes documents of this folder's origin only.

    Every trouble, such as a bad file, a folder that is gone or a server that does not answer, is a line for ``say``,
    and the watch goes on. ``name`` is what the folder is called in those lines.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        collection: str,
        *,
        data_folder: Path,
        submit: Submit,
        say: Say,
        clock: Clock,
        noticing: Noticing | None = None,
    ) -> None:
        self.name, self.origin = str(folder), origin_of(folder)
        self._client, self._folder, self._collection = client, Path(self.origin), collection
        self._data_folder, self._submit, self._say, self._clock = data_folder.resolve(), submit, say, clock
        self._noticing = noticing or noticing_changes
        self._documents: dict[str, str] | None = None  # content hashes, as of the last whole comparison and since
        self._known: dict[str, _Known] = {}
        self._refused: dict[str, str] = {}  # content hashes of files that did not go in
        self._root: tuple[int, int] | None = None  # the folder when it last held files
        self._told: frozenset[str] = frozenset()
        self._first = True
        self._look_s = 0.0

    async def run(self) -> None:
        while True:
            try:
                if await self._identity() is None:
                    await self._pass()  # says so
                else:
                    async with self._noticing(self._folder, self._relevant, self._tell) as news:
                        await self._keep_up(news)
            except (RagworksError, OSError) as error:
                self._documents = None
                self._troubled((f"{getattr(error, 'code', 'os_error')}: {error}",))
            await self._clock.sleep(RETRY_S)

    async def _keep_up(self, news: asyncio.Event) -> None:
        """Return when the folder is gone, or is another one than before: then it must be watched anew."""
        root, compare_at = await self._identity(), self._clock.monotonic()
        while await self._identity() == root:
            began = self._clock.monotonic()
            if began >= compare_at:
                self._documents, compare_at = None, began + COMPARE_S
            news.clear()
            restless = await self._pass()
            # A file that changes all the time, such as a log, must not have a large folder walked all the time.
            if rest_s := self._look_s * (1 / LOOK_SHARE - 1):
                await self._clock.sleep(rest_s)
            left = max(0.0, compare_at - self._clock.monotonic())
            await self._wait(news, min(left, QUIET_S) if restless else left)

    async def _identity(self) -> tuple[int, int] | None:
        return await asyncio.to_thread(_identity, self._folder)

    async def _wait(self, news: asyncio.Event, timeout_s: float) -> None:
        waits = [asyncio.ensure_future(news.wait()), asyncio.ensure_future(self._clock.sleep(timeout_s))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _pass(self) -> bool:
        """Look once, and bring the collection up with what is seen; whether to look again soon."""
        if self._documents is None:
            listed = await self._client.documents(self._collection, self.origin)
            self._documents = {one["id"]: one["content_hash"] for one in listed}
        began = self._clock.monotonic()
        seen = await asyncio.to_thread(self._look, self._documents)
        self._look_s = self._clock.monotonic() - began
        done = ChangeSet(len(seen.files), sum(self._documents.get(name) == one for name, one in seen.files.items()))
        while names := self._next(made := self._plan(seen)):
            await self._put(names, made, seen, done)
        if not seen.settling:
            await self._remove(made.gone, done)
        kept = tuple(f"{name}: its file is gone, and stays until the same bytes are in again" for name in made.kept)
        self._troubled((*seen.troubles, *kept))
        if EVERYTHING not in seen.unseen:
            self._report(done)
        return seen.restless

    def _plan(self, seen: _Seen) -> Plan:
        assert self._documents is not None
        self._refused = {name: one for name, one in self._refused.items() if seen.files.get(name) == one}
        return plan(seen.files, self._documents, unseen=seen.unseen, refused=self._refused)

    @staticmethod
    def _next(made: Plan) -> tuple[str, ...]:
        return made.moved or (*made.new, *made.changed)

    async def _put(self, names: Sequence[str], made: Plan, seen: _Seen, done: ChangeSet) -> None:
        """Submit files and wait for their end. What did not go in is tried again when it has changed."""
        assert self._documents is not None
        tally = await self._submit([seen.sources[name] for name in names])
        failed = {one.name for one in tally.failed}
        if tally.cancelled:  # the tally does not say which
            listed = await self._client.documents(self._collection, self.origin)
            held = {one["id"]: one["content_hash"] for one in listed}
            failed |= {name for name in names if held.get(name) != seen.files[name]}
        for name in names:
            content_hash = seen.files[name]
            assert content_hash is not None
            (self._refused if name in failed else self._documents)[name] = content_hash
        done.failed += tally.failed
        done.new += len(set(names) & set(made.new) - failed)
        done.changed += len(set(names) & set(made.changed) - failed)

    async def _remove(self, names: Sequence[str], done: ChangeSet) -> None:
        for start in range(0, len(names), DELETES_AT_ONCE):
            part = names[start : start + DELETES_AT_ONCE]
            done.gone += sum(await asyncio.gather(*(self._remove_one(name) for name in part)))

    async def _remove_one(self, name: str) -> bool:
        assert self._documents is not None
        known = self._documents[name]
        try:
            # What is known may be minutes old: meanwhile somebody may have put another document under this id.
            found = await self._client.document(self._collection, name)
            if ours := (found["origin"], found["content_hash"]) == (self.origin, known):
                await self._client.delete_document(self._collection, name)
        except ServerProblem as problem:
            if problem.code != "document_not_found":
                raise
            ours = False
        del self._documents[name]
        return ours

    # looking; in a thread

    def _look(self, documents: dict[str, str]) -> _Seen:
        root = _identity(self._folder)
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
        if root is None or root != _identity(self._folder):
            unseen.add(EVERYTHING)
            troubles = ["the folder is gone; its documents stay until it is back"]
        elif not files and documents and root != self._root:
            # What an unmounted disk leaves. Emptied while it was watched, it would be the folder that held files.
            unseen.add(EVERYTHING)
            troubles.append("the folder is empty, which it was not before; its documents stay until it holds a file")
        elif files:
            self._root = root
        settling = any(self._clock.monotonic() - since < SETTLE_S for since in unread)
        sources = {one.name: one for one in found}
        return _Seen(files, sources, frozenset(unseen), tuple(troubles), restless=bool(unread), settling=settling)

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

    def _relevant(self, path: Path) -> bool:
        """Whether a change there can change what the folder holds: its own data folder changes all the time."""
        try:
            parts = path.relative_to(self._folder).parts
        except ValueError:
            return True
        return not any(map(passing, parts)) and not path.is_relative_to(self._data_folder)

    # telling

    def _report(self, done: ChangeSet) -> None:
        for one in done.failed:
            self._say(f"failed: {one.name}: {one.code}: {one.message}")
        if self._first:
            inside = done.unchanged + done.new + done.changed
            self._say(
                f"ingested {self.name}: {inside} of {done.files} documents are in "
                f"({done.unchanged} unchanged, {len(done.failed)} failed), {done.gone} gone; watching for changes"
            )
        elif done.new or done.changed or done.gone or done.failed:
            self._tell(str(done))
        self._first = False

    def _troubled(self, troubles: tuple[str, ...]) -> None:
        """Say each trouble once, until it has passed."""
        for one in troubles:
            if one not in self._told:
                self._tell(one)
        self._told = frozenset(troubles)

    def _tell(self, sentence: str) -> None:
        self._say(f"{self.name}: {sentence}")


@asynccontextmanager
async def noticing_changes(folder: Path, relevant: Callable[[Path], bool], say: Say) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever something relevant below the folder has changed.

    It is set once at the beginning, for what changed before the operating system listened. Where the system does not
    tell of changes, ``say`` hears so, and the event stays as it is.
    """
    loop, news, stop = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def listen() -> None:
        listening = False
        try:
            for changes in watchfiles.watch(
                folder,
                watch_filter=lambda change, path: relevant(Path(path)),
                debounce=DEBOUNCE_MS,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                if changes or not listening:
                    loop.call_soon_threadsafe(news.set)
                listening = True
        except (OSError, RuntimeError) as error:
            sentence = f"changes are not noticed ({error}); the folder is compared every {COMPARE_S:.0f} s"
            loop.call_soon_threadsafe(say, sentence)

    # A thread of its own: it is taken for as long as the folder is watched.
    listener = threading.Thread(target=listen, name=f"watch {folder}", daemon=True)
    listener.start()
    try:
        yield news
    finally:
        stop.set()
        await asyncio.shield(asyncio.to_thread(listener.join))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder a path leads to now: another one after a disk was unmounted or a link was turned."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
