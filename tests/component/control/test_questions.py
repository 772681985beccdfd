"""The query log at work: how a question ended is known, what the mode forbids is not kept, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from ragworks.control.behind import FLUSH_EVERY_S, MAX_WAITING
from ragworks.control.questions import MAX_DOCUMENTS, Asked, Questions
from ragworks.errors import CollectionNotFound, InvalidInput, NotReady, QuestionNotFound, StorageFull
from ragworks.testing import FakeClock, MemoryQueries, a_hit
from ragworks.types import Answer, Citation, SearchResult

HIT = a_hit("Thirty days.", "leave.md", score=0.8)
TIMES = {"embed": 0.1, "retrieve": 0.2, "rerank": 0.0, "total": 0.3}


def found(*hits: object) -> SearchResult:
    return SearchResult(hits, TIMES, cached=True)  # type: ignore[arg-type]


def answer(*, abstained: bool) -> Answer:
    cited = Citation(1, "leave.md", "c", "Leave", None, 0, 4, "Thirty")
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return Answer("text", abstained, () if abstained else (cited,), "extractive", usage, {"total": 0.5}, 2.5)


@pytest.fixture
def kept() -> MemoryQueries:
    return MemoryQueries()


def log(
    kept: MemoryQueries, mode: str = "full", on: Callable[[str, str], None] = lambda kind, outcome: None
) -> Questions:
    return Questions(kept, mode, FakeClock(), on)


def ended(asked: Asked, result: SearchResult | None = None, said: Answer | None = None) -> None:
    asked.found, asked.answer = result, said


@pytest.mark.parametrize(
    ("kind", "result", "said", "outcome"),
    [
        ("search", found(HIT), None, "answered"),
        ("search", found(), None, "nothing"),
        ("search", None, None, "left"),
        ("ask", found(HIT), answer(abstained=False), "answered"),
        ("ask", found(HIT), answer(abstained=True), "abstained"),
        ("ask", found(), answer(abstained=True), "nothing"),
        ("ask", found(HIT), None, "left"),
    ],
)
async def test_how_a_question_ended_is_kept_and_counted(kept, kind, result, said, outcome) -> None:
    heard: list[tuple[str, str]] = []
    questions = log(kept, on=lambda *what: heard.append(what))
    with questions.asked(kind, "default", "how many days?") as asked:
        ended(asked, result, said)
    [row] = await questions.since(0)
    assert (row.key, row.outcome, row.text, heard) == (asked.key, outcome, "how many days?", [(kind, outcome)])


async def test_a_row_holds_what_was_seen_of_the_answer(kept) -> None:
    questions = log(kept)
    with (
        structlog.contextvars.bound_contextvars(request_id="r7"),
        questions.asked("ask", "c", "q", mode="dense") as asked,
    ):
        ended(asked, found(HIT, HIT, a_hit("x", "other.md")), answer(abstained=False))
    [row] = await questions.since(0)
    assert (row.request, row.collection, row.mode, row.hits, row.best_score) == ("r7", "c", "dense", 3, 0.8)
    assert (row.documents, row.cited) == (("leave.md", "other.md"), ("leave.md",))
    assert (row.cached, row.support, row.generator, row.tokens) == (True, 2.5, "extractive", 9)
    assert row.seconds == {"total": 0.5}


async def test_an_error_is_kept_by_its_code_and_raised(kept) -> None:
    questions = log(kept)
    for error in (NotReady("not yet"), ValueError("a bug")):
        with pytest.raises(type(error)), questions.asked("search", "default", "q"):
            raise error
    assert [(row.outcome, row.error) for row in await questions.since(0)] == [
        ("failed", "not_ready"), ("failed", "internal_error"),
    ]  # fmt: skip


async def test_what_could_not_be_answered_by_whoever_asked_is_no_question(kept) -> None:
    heard: list[Any] = []
    questions = log(kept, on=lambda *what: heard.append(what))
    for error in (CollectionNotFound("nope"), InvalidInput("expected a question, found none")):
        with pytest.raises(type(error)), questions.asked("search", "nope", "q"):
            raise error
    assert (list(await questions.since(0)), heard) == ([], [])


async def test_who_leaves_before_the_answer_left_and_behind_it_was_answered(kept) -> None:
    questions = log(kept)
    for there in (False, True):
        with suppress(GeneratorExit), questions.asked("ask", "default", "q") as asked:
            if there:
                ended(asked, found(HIT), answer(abstained=False))
            raise GeneratorExit
    assert [row.outcome for row in await questions.since(0)] == ["left", "answered"]


async def test_a_rerank_is_timed_only_where_it_was_asked_for(kept) -> None:
    questions = log(kept)
    for rerank in (False, True):
        with questions.asked("search", "default", "q", rerank=rerank) as asked:
            ended(asked, found(HIT))
    assert ["rerank" in row.seconds for row in await questions.since(0)] == [False, True]


async def test_a_question_with_many_documents_keeps_the_best(kept) -> None:
    questions = log(kept)
    with questions.asked("search", "default", "q") as asked:
        ended(asked, found(*(a_hit("x", str(n)) for n in range(1000))))
    [row] = await questions.since(0)
    assert row.documents == tuple(map(str, range(MAX_DOCUMENTS)))


async def test_texts_and_comments_are_kept_in_mode_full_alone(kept) -> None:
    for mode, text in (("full", "a secret"), ("metadata", None)):
        kept.kept.clear()
        questions = log(kept, mode)
        with questions.asked("search", "default", "a secret") as asked:
            ended(asked, found(HIT))
        assert await questions.rate("default", asked.key, "up", "a secret") == (text is not None)
        [row] = await questions.since(0)
        assert (row.text, row.comment, row.rating) == (text, text, "up")


async def test_with_mode_off_nothing_is_kept_and_still_everything_is_counted(kept) -> None:
    heard: list[object] = []
    async with log(kept, "off", lambda *what: heard.append(what)) as questions:
        with questions.asked("search", "default", "q") as asked:
            ended(asked, found(HIT))
        with pytest.raises(QuestionNotFound, match=r"query_log\.mode is off"):
            await questions.rate("default", asked.key, "up", None)
    assert (kept.kept, heard) == ({}, [("search", "answered")])


async def test_feedback_on_what_nobody_asked_is_refused(kept) -> None:
    with pytest.raises(QuestionNotFound, match="older than query_log"):
        await log(kept).rate("default", "nope", "up", None)


async def test_rows_are_kept_a_moment_later_without_being_asked_for(kept) -> None:
    clock = FakeClock()
    async with Questions(kept, "full", clock) as questions:
        with questions.asked("search", "default", "q"):
            pass
        assert not kept.kept
        await clock.advance(FLUSH_EVERY_S)
        assert len(kept.kept) == 1


async def test_a_full_disk_costs_rows_and_no_question(kept) -> None:
    kept.error = StorageFull("the disk is full")
    questions = log(kept)
    with capture_logs() as logged:
        for n in range(MAX_WAITING + 5):
            with questions.asked("search", "default", f"q{n}"):
                pass
            await questions.since(0) if n % 100 == 0 else None
        kept.error = None
        rows = await questions.since(0)
    assert [row.text for row in rows] == [f"q{n}" for n in range(5, MAX_WAITING + 5)]
    assert [line["action"] for line in logged] == ["questions_not_kept", "questions_kept_again"]
    assert logged[-1]["lost"] == 5
