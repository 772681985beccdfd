"""What 202 promises when the power goes, or the disk fails under SQLite: seen and broken in the C library."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from faults.disk import SETTINGS, Disk, compiled
from ragworks.app import build
from ragworks.settings import load
from ragworks.types import Checkup

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="stands between a process and its C library by LD_PRELOAD"),
    pytest.mark.timeout(180),
]

DOCUMENTS = "/v1/collections/default/documents"
LOG, FILE = r"ragworks\.db-wal", r"blobs/(?P<name>new-\S+)"
PROMISE = (
    ("the bytes are written", f"write {FILE}"),
    ("the bytes are synced", r"sync blobs/(?P=name)"),
    ("the name of their folder is synced", r"sync blobs"),
    ("the bytes get their name", r"rename (?P<folder>blobs/..)/\S+"),
    ("their name is synced", r"sync (?P=folder)"),
    ("the row is written", f"write {LOG}"),
    ("the row is synced", f"sync {LOG}"),
    ("the answer leaves", r"answer 202"),
)
"""In this order, with anything in between; ``(?P=…)`` stands for what an earlier step was about."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> Disk:
    return Disk(library, tmp_path)


def missing(events: Sequence[str]) -> str | None:
    """The first step of the promise that was not taken before the answer, if one was not."""
    known: dict[str, str] = {}
    left = iter(events[: events.index("answer 202") + 1])
    for what, pattern in PROMISE:
        for name, value in known.items():
            pattern = pattern.replace(f"(?P={name})", re.escape(value))
        found = next((match for one in left if (match := re.fullmatch(pattern, one))), None)
        if found is None:
            return what
        known |= found.groupdict()
    return None


async def submit(http: httpx.AsyncClient, name: str, text: str = "") -> httpx.Response:
    body = {"documents": [{"id": name, "text": text or words_of(name)}]}
    return await http.post(DOCUMENTS, json=body)


def words_of(name: str) -> str:
    return "\n\n".join(f"Paragraph {n} of {name} speaks of brass bells and of how they rang." for n in range(12))


async def completed(http: httpx.AsyncClient, submitted: httpx.Response) -> None:
    async with http.stream("GET", f"{submitted.headers['location']}/events") as events:
        async for _ in events.aiter_lines():
            pass


async def restarted(data: Path) -> tuple[dict[str, str], Checkup]:
    """The text of each document, and a checkup, once a new process has ended what the dead one left."""
    async with build(load(environ=SETTINGS, server={"data": str(data)})) as app:
        for job in (await app.document_processor.jobs(1000, None)).data:
            await app.document_processor.finished(job.id)
        names = [one.id for one in (await app.vector_store.documents("default", 1000, None)).data]
        return {name: await app.vector_store.text("default", name) for name in names}, await app.vector_store.checkup()


async def test_bytes_names_and_rows_are_synced_before_the_answer_leaves(disk: Disk) -> None:
    async with disk.server() as (_, http):
        before = len(disk.events())
        assert (await submit(http, "note")).status_code == 202
        assert "sync ." in disk.events()
        assert missing(disk.events()[before:]) is None


STEPS = ["write blobs/new-1", "sync blobs/new-1", "sync blobs", "rename blobs/ab/abc", "sync blobs/ab"]
STEPS += ["write ragworks.db-wal", "sync ragworks.db-wal", "answer 202"]


def test_the_order_is_found_whatever_comes_in_between() -> None:
    assert missing([one for step in STEPS for one in ("write index/words", "sync ragworks.db", step)]) is None


@pytest.mark.parametrize("step", range(len(STEPS) - 1))
def test_a_step_that_is_not_taken_or_taken_after_the_answer_is_noticed(step: int) -> None:
    without = [*STEPS[:step], *STEPS[step + 1 :]]
    assert missing(without) == PROMISE[step][0]
    assert missing([*without, STEPS[step]]) == PROMISE[step][0]


async def submit_until_it_dies(http: httpx.AsyncClient, process: asyncio.subprocess.Process) -> list[str]:
    """Which documents were acknowledged before the server died."""
    acknowledged: list[str] = []
    try:
        for number in range(200):
            if (await submit(http, f"note-{number}")).status_code == 202:
                acknowledged.append(f"note-{number}")
    except httpx.TransportError:
        assert await process.wait() == -signal.SIGKILL
        return acknowledged
    raise AssertionError("the server was to die")


@pytest.mark.parametrize("number", [1, 2, 3, 20, 61])
async def test_a_write_to_the_log_that_is_torn_costs_nothing_that_was_acknowledged(disk: Disk, number: int) -> None:
    async with disk.server() as (process, http):
        await completed(http, await submit(http, "known"))
        disk.break_down("write", "ragworks.db-wal", "torn", number)
        acknowledged = await submit_until_it_dies(http, process)
    texts, check = await restarted(disk.data)
    assert check.problems == ()
    assert {"known", *acknowledged} <= set(texts)
    assert all(text == words_of(name) for name, text in texts.items())


@pytest.mark.parametrize("number", [1, 2, 7])
async def test_a_write_that_is_torn_while_the_log_is_folded_into_the_file_costs_nothing(
    disk: Disk, number: int
) -> None:
    async with disk.server() as (process, http):
        for name in ("a", "b"):
            await completed(http, await submit(http, name))
        disk.break_down("write", "ragworks.db", "torn", number)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGKILL
    texts, check = await restarted(disk.data)
    assert (texts, check.problems) == ({"a": words_of("a"), "b": words_of("b")}, ())


async def test_a_sync_that_fails_while_the_log_is_folded_into_the_file_leaves_the_log_in_force(disk: Disk) -> None:
    async with disk.server() as (process, http):
        for name in ("a", "b"):
            await completed(http, await submit(http, name))
        disk.break_down("sync", "ragworks.db", "EIO")
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert "broken ragworks.db" in disk.events()
        image = disk.cut_power(disk.folder / "after")
    for data in (disk.data, image):
        texts, check = await restarted(data)
        assert (texts, check.problems) == ({"a": words_of("a"), "b": words_of("b")}, ())


@pytest.mark.parametrize(
    ("operation", "suffix", "how"),
    [
        ("write", "ragworks.db-wal", "EIO"),
        ("write", "ragworks.db-wal", "ENOSPC"),
        ("sync", "ragworks.db-wal", "EIO"),
        ("sync", "blobs", "EIO"),
    ],
)
async def test_what_could_not_be_written_or_synced_is_not_acknowledged_and_the_next_is_kept(
    disk: Disk, operation: str, suffix: str, how: str
) -> None:
    """After a sync that failed the kernel may take the bytes for written: none of them may be relied on."""
    async with disk.server() as (_, http):
        await completed(http, await submit(http, "known", "wires of copper"))
        disk.break_down(operation, suffix, how)
        refused = await submit(http, "refused")
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        accepted = [name for name in ("a", "b") if (await submit(http, name)).status_code == 202]
        assert accepted == ["a", "b"]
        image = disk.cut_power(disk.folder / "after")
    for data in (disk.data, image):
        texts, check = await restarted(data)
        assert check.problems == ()
        assert {"known", *accepted} == set(texts)


async def test_after_a_power_cut_everything_that_was_acknowledged_is_there_and_what_was_deleted_is_not(
    disk: Disk,
) -> None:
    """The power is cut after each answer, in turn: only what was synced is left."""
    images: list[tuple[Path, set[str], set[str]]] = []
    there: set[str] = set()
    gone: set[str] = set()
    async with disk.server() as (_, http):
        for number in range(12):
            name = f"note-{number}"
            assert (await submit(http, name)).status_code == 202
            there.add(name)
            if number % 3 == 2:
                old = f"note-{number - 2}"
                assert (await http.delete(f"{DOCUMENTS}/{old}")).status_code == 204
                there.discard(old)
                gone.add(old)
            if number % 4 == 3 or number % 3 == 2:
                images.append((disk.cut_power(disk.folder / f"after-{number}"), set(there), set(gone)))
    for image, must, must_not in images:
        texts, check = await restarted(image)
        assert check.problems == ()
        assert set(texts) == must
        assert not must_not & set(texts)
        assert all(text == words_of(name) for name, text in texts.items())
