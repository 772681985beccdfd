"""Every QueryLog: questions come back as they were, feedback finds its question, and no more are kept than may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragworks.control_protocols import QueryLog
from ragworks.policies.digesting import Question
from ragworks.settings import QueryLogSettings
from ragworks.storage.queries import SqliteQueries
from ragworks.testing import FakeClock, MemoryQueries

KEEP = 20


def a_question(key: str = "k1", *, at: float = 1_700_000_000.0, text: str | None = "naïve ☃?") -> Question:
    return Question(
        key, at, "r1", "default", "ask", "hybrid", "answered", "", {"embed": 0.25, "total": 1.5}, 2, 0.9, -1.5,
        ("b", "a"), ("a",), True, "extractive", 7, text,
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QueryLog]:
    if request.param == "memory":
        yield MemoryQueries(KEEP)
        return
    kept = SqliteQueries(tmp_path / "queries.db", QueryLogSettings(keep=KEEP), FakeClock())
    kept.open()
    yield kept
    kept.close()


async def test_a_question_comes_back_as_it_was(log: QueryLog) -> None:
    bare = Question("k2", 1_700_000_001.0, "", "default", "search", "dense", "failed", "not_ready")
    await log.append([a_question(), bare])
    assert list(await log.since(0)) == [a_question(), bare]


async def test_only_what_is_not_older_is_told(log: QueryLog) -> None:
    await log.append([a_question("old", at=1_700_000_000), a_question("new", at=1_700_000_009)])
    assert [one.key for one in await log.since(1_700_000_009)] == ["new"]


async def test_feedback_replaces_feedback_and_saying_it_again_changes_nothing(log: QueryLog) -> None:
    await log.append([a_question()])
    for rating, comment in (("up", "good"), ("down", None), ("down", None)):
        assert await log.rate("default", "k1", rating, comment)  # type: ignore[arg-type]
        [found] = await log.since(0)
        assert (found.rating, found.comment) == (rating, comment)


async def test_feedback_on_what_is_not_there_is_refused(log: QueryLog) -> None:
    await log.append([a_question()])
    assert not await log.rate("default", "k2", "up", None)
    assert not await log.rate("other", "k1", "up", None)
    assert [one.rating for one in await log.since(0)] == [None]


async def test_a_question_that_is_kept_twice_is_there_once(log: QueryLog) -> None:
    await log.append([a_question()])
    await log.append([a_question(text="another")])
    assert list(await log.since(0)) == [a_question()]


async def test_the_oldest_go(log: QueryLog) -> None:
    for n in range(3):
        await log.append([a_question(f"{n}-{m}") for m in range(KEEP)])
    assert [one.key for one in await log.since(0)] == [f"2-{m}" for m in range(KEEP)]


async def test_an_empty_log_has_nothing_to_tell(log: QueryLog) -> None:
    await log.append([])
    assert list(await log.since(0)) == []
