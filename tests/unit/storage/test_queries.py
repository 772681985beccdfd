"""The file of the questions: what it survives, what bounds it, and that it holds no more than its mode allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.test_query_logs import a_question
from faults.test_disk import no_room
from ragworks.errors import StorageFull
from ragworks.settings import QueryLogSettings
from ragworks.storage.queries import SqliteQueries
from ragworks.testing import FakeClock

SECRET = "who is to be dismissed in spring"


@contextmanager
def opened(path: Path, clock: FakeClock | None = None, **settings: object) -> Iterator[SqliteQueries]:
    log = SqliteQueries(path / "queries.db", QueryLogSettings(**settings), clock or FakeClock())  # type: ignore[arg-type]
    log.open()
    try:
        yield log
    finally:
        log.close()


def written(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.glob("queries.db*"))


async def test_questions_and_their_feedback_survive_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        await log.append([a_question()])
        await log.rate("default", "k1", "up", "good")
    with opened(tmp_path) as log:
        [found] = await log.since(0)
    assert (found.key, found.rating, found.comment) == ("k1", "up", "good")


async def test_what_is_too_old_goes_and_its_bytes_too(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path, clock, keep_s=100, mode="full") as log:
        await log.append([a_question("old", at=clock.now(), text=SECRET)])
        assert SECRET.encode() in written(tmp_path)
        await clock.advance(101)
        await log.append([a_question("new", at=clock.now())])
        await log.checkpoint()
        assert [one.key for one in await log.since(0)] == ["new"]
        assert SECRET.encode() not in written(tmp_path)


@pytest.mark.parametrize(("mode", "left"), [("full", 1), ("metadata", 1), ("off", 0)])
async def test_a_narrower_mode_lets_go_of_what_it_does_not_allow(tmp_path: Path, mode: str, left: int) -> None:
    with opened(tmp_path, mode="full") as log:
        await log.append([a_question(text=SECRET)])
        await log.rate("default", "k1", "down", f"about {SECRET}")
    with opened(tmp_path, mode=mode) as log:
        await log.narrow()
        found = await log.since(0)
        assert len(found) == left
        assert (SECRET.encode() in written(tmp_path)) == (mode == "full")
        assert [one.rating for one in found] == ["down"] * left


async def test_a_log_that_was_never_written_is_read_without_making_a_file(tmp_path: Path) -> None:
    log = SqliteQueries(tmp_path / "queries.db", QueryLogSettings(mode="off"), FakeClock())
    assert list(await log.since(0)) == []
    assert not await log.rate("default", "k1", "up", None)
    await log.narrow()
    log.close()
    assert not written(tmp_path)


async def test_a_full_disk_refuses_questions_and_feedback_and_takes_them_again(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        await log.append([a_question("before")])
        with no_room():
            with pytest.raises(StorageFull):
                await log.append([a_question("lost")])
            with pytest.raises(StorageFull):
                await log.rate("default", "before", "up", None)
        await log.append([a_question("after")])
        assert [one.key for one in await log.since(0)] == ["before", "after"]


async def test_a_damaged_file_is_put_aside_and_the_next_one_begun(tmp_path: Path) -> None:
    (tmp_path / "queries.db").write_bytes(b"this is no database" * 100)
    with opened(tmp_path) as log:
        await log.append([a_question()])
        assert len(await log.since(0)) == 1
    assert (tmp_path / "queries.db.damaged").exists()
