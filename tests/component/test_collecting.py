"""What nobody can find any more is deleted: at once if it is little, behind everyone's back if it is much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragworks.errors import StorageFull
from ragworks.services import vector_store
from ragworks.testing import until
from stores import Opened, claimed, found, key_of, opened, publish, read, stage


class Gate:
    """Holds up every call of a method until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str) -> None:
        self.opened, self.calls = asyncio.Event(), 0
        really = getattr(owner, method)

        async def gated(*args: Any) -> Any:
            self.calls += 1
            await self.opened.wait()
            return await really(*args)

        monkeypatch.setattr(owner, method, gated)


async def full(version: int, on_forgotten: object) -> None:
    raise StorageFull("no room")


async def indexed(at: Opened, names: Sequence[str], collection: str) -> None:
    for name in names:
        task = await claimed(at, name, collection=collection, text=f"the battery of {name}")
        await at.store.publish(task, await stage(at, task, read(f"the battery of {name}")))
        await at.jobs.finish(task, unchanged=False, warnings=())


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions are too much to wait for."""
    monkeypatch.setattr(vector_store, "DELETED_AT_ONCE", 1)


@pytest.mark.usefixtures("little")
async def test_dropping_a_large_collection_answers_before_its_rows_are_gone(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to take minutes at 100,000 documents, within the request."""
    await publish(storage, "other", "the keel")
    await storage.store.create_collection("trial")
    await indexed(storage, ["a", "b", "c"], "trial")
    gate = Gate(monkeypatch, storage.rows, "collect")
    await storage.store.drop_collection("trial")
    await until(lambda: gate.calls > 0)
    during = await storage.store.checkup()
    assert (during.documents, during.problems) == (1, ())
    gate.opened.set()
    await until(lambda: not storage.store.stats()["being_collected"])
    after = await storage.store.checkup()
    assert (after.documents, after.chunks, after.blobs, after.problems) == (1, 1, 1, ())
    assert await storage.rows.abandoned() == []


@pytest.mark.usefixtures("little")
async def test_a_collection_of_the_same_name_shows_nothing_of_the_one_being_deleted(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.store.create_collection("trial")
    await indexed(storage, ["a", "b"], "trial")
    gate = Gate(monkeypatch, storage.rows, "collect")
    await storage.store.drop_collection("trial")
    await storage.store.create_collection("trial")
    gate_free = Gate(monkeypatch, storage.rows, "collect")  # what is staged and published now collects nothing old
    gate_free.opened.set()
    await indexed(storage, ["new"], "trial")
    assert await found(storage, "battery", collection="trial") == {"new"}
    assert (await storage.store.checkup()).problems == ()
    gate.opened.set()


@pytest.mark.usefixtures("little")
async def test_what_was_not_deleted_before_the_end_is_deleted_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as at:
        await at.store.create_collection("trial")
        await indexed(at, ["a", "b", "c"], "trial")
        Gate(monkeypatch, at.rows, "collect")
        await at.store.drop_collection("trial")
    async with opened(tmp_path) as at:
        await until(lambda: not at.store.stats()["being_collected"])
        after = await at.store.checkup()
        assert (after.documents, after.chunks, after.blobs, after.problems) == (0, 0, 0, ())
        assert await at.rows.abandoned() == []


async def test_who_deletes_returns_when_it_is_gone_even_if_another_is_deleting_the_same(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(storage, "bike", "the battery")
    content_hash = next(iter(storage.blobs.hashes()))
    gate = Gate(monkeypatch, storage.rows, "release")
    other = asyncio.create_task(storage.store.forget_blobs([content_hash]))
    await until(lambda: gate.calls == 1)
    deleting = asyncio.create_task(storage.store.delete_document("default", "bike"))
    await until(lambda: gate.calls == 2 or deleting.done())
    assert not deleting.done()
    gate.opened.set()
    await asyncio.gather(other, deleting)
    assert storage.blobs.hashes() == set()


async def test_a_version_that_could_not_be_deleted_stays_owed(storage: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish(storage, "bike", "the battery")
    with monkeypatch.context() as broken:
        broken.setattr(storage.rows, "collect", full)
        with pytest.raises(StorageFull):
            await storage.store.delete_document("default", "bike")
    await storage.store.forget_blobs([])
    assert await storage.rows.abandoned() == []


async def test_a_delete_that_is_cancelled_again_and_again_comes_to_its_end(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cancel, as of a watchdog that judges once more, used to leave it half way until the next start."""
    await publish(storage, "bike", "the battery")
    gate = Gate(monkeypatch, storage.rows, "collect")
    deleting = asyncio.create_task(storage.store.delete_document("default", "bike"))
    await until(lambda: gate.calls)
    for _ in range(3):
        deleting.cancel()
        await asyncio.wait({deleting}, timeout=0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    checkup = await storage.store.checkup()
    assert (checkup.chunks, checkup.blobs, checkup.problems) == (0, 0, ())


async def test_a_begin_that_is_cancelled_while_it_collects_still_tells_what_is_to_be_forgotten(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that went without a word would stay in the cache for a day."""
    await publish(storage, "bike", "the battery")
    task = await claimed(storage, "boat", text="the keel")
    with monkeypatch.context() as broken:
        broken.setattr(storage.rows, "collect", full)
        with pytest.raises(StorageFull):
            await storage.store.delete_document("default", "bike")
    gate = Gate(monkeypatch, storage.rows, "collect")
    beginning = asyncio.create_task(storage.store.begin(task, read("the keel"), "model", 8))
    await until(lambda: gate.calls)
    beginning.cancel()
    await asyncio.wait({beginning}, timeout=0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert storage.forgotten == [key_of("the battery")]
