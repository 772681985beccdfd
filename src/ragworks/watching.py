"""Keeps a collection up with a folder: new, changed, renamed and deleted files, also those of a time nobody watched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragworks.client import Client
from ragworks.errors import ServerProblem
from ragworks.feed import Failure, Tally
from ragworks.finding import Source, origin_of
from ragworks.looking import QUIET_S, FolderLook, Identity, Seen, noticing_changes
from ragworks.policies.mirroring import EVERYTHING, Plan, plan
from ragworks.waiting import news_or_time

if TYPE_CHECKING:
    from ragworks.protocols import Clock

COMPARE_S = 600.0  # network disks and full watch limits tell of no changes
RETRY_S = 5.0
LOOK_SHARE = 0.1  # of one core, at most, for looking
DELETES_AT_ONCE = 8

Say = Callable[[str], None]
Submit = Callable[[Sequence[Source]], Awaitable[Tally]]
"""Puts files into the collection: what became of each, once all have ended."""

Noticing = Callable[[Path, Callable[[Path], bool], Callable[[str], None]], AbstractAsyncContextManager[asyncio.Event]]


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
        self._client, self._folder, self._collection = client, Path(os.path.abspath(folder)), collection
        self._submit, self._say, self._clock = submit, say, clock
        self._look = FolderLook(self._folder, data_folder, clock)
        self._noticing = noticing or noticing_changes
        self._documents: dict[str, str] | None = None  # content hashes, as of the last whole comparison and since
        self._refused: dict[str, str] = {}  # content hashes of files that did not go in
        self._told: frozenset[str] = frozenset()
        self._unnoticed = ""
        self._first = True
        self._look_s = 0.0

    async def run(self) -> None:
        while True:
            try:
                if await self._identity() is None:
                    await self._pass()  # says so
                else:
                    async with self._noticing(self._folder, self._look.relevant, self._unnoticing) as news:
                        await self._keep_up(news)
            except Exception as error:  # whatever one look met, the next may not
                self._documents = None
                self._troubled((f"{getattr(error, 'code', type(error).__name__)}: {error}",))
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
            await news_or_time(news, self._clock, min(left, QUIET_S) if restless else left)

    async def _identity(self) -> Identity | None:
        return await asyncio.to_thread(self._look.identity)

    async def _pass(self) -> bool:
        """Look once, and bring the collection up with what is seen; whether to look again soon."""
        if self._documents is None:
            listed = await self._client.documents(self._collection, self.origin)
            self._documents = {one["id"]: one["content_hash"] for one in listed}
        began = self._clock.monotonic()
        seen = await asyncio.to_thread(self._look.look, self._documents)
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

    def _plan(self, seen: Seen) -> Plan:
        assert self._documents is not None
        self._refused = {name: one for name, one in self._refused.items() if seen.files.get(name) == one}
        return plan(seen.files, self._documents, unseen=seen.unseen, refused=self._refused)

    @staticmethod
    def _next(made: Plan) -> tuple[str, ...]:
        return made.moved or (*made.new, *made.changed)

    async def _put(self, names: Sequence[str], made: Plan, seen: Seen, done: ChangeSet) -> None:
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

    def _unnoticing(self, reason: str) -> None:
        if reason != self._unnoticed:
            self._tell(f"changes are not noticed ({reason}); the folder is compared every {COMPARE_S:.0f} s")
        self._unnoticed = reason

    def _tell(self, sentence: str) -> None:
        self._say(f"{self.name}: {sentence}")
