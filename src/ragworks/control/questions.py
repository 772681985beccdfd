"""The query log at work: each search and each ask becomes a row, a moment after it was answered.

No question waits for its row, and none is hurt by it: a full disk costs rows. Texts are kept in mode full alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from ragworks.control.behind import Behind
from ragworks.control_protocols import QueryLog, Rating
from ragworks.errors import InvalidInput, NotFound, QuestionNotFound, RagworksError
from ragworks.policies.digesting import Question
from ragworks.protocols import Clock
from ragworks.types import Answer, SearchResult

MAX_DOCUMENTS = 100  # of one question: the best of a list that nobody reads to its end

OnQuestion = Callable[[str, str], None]
"""Given kind and outcome. Must return at once and must not raise."""


def fresh_key() -> str:
    return uuid.uuid4().hex


class Asked:
    """A question that is being answered: who answers it says here what was found."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.found: SearchResult | None = None
        self.answer: Answer | None = None


class Questions:
    """Entering starts the task that keeps rows; leaving keeps those that wait."""

    def __init__(
        self,
        queries: QueryLog,
        mode: str,
        clock: Clock,
        on_question: OnQuestion = lambda kind, outcome: None,
        on_feedback: Callable[[str], None] = lambda rating: None,
    ) -> None:
        self._queries, self._mode, self._clock = queries, mode, clock
        self._on_question, self._on_feedback = on_question, on_feedback
        self._behind: Behind[Question] = Behind(self._append, clock, "questions")

    async def __aenter__(self) -> Questions:
        await self._behind.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._behind.__aexit__(*exc)

    @contextmanager
    def asked(
        self,
        kind: str,
        collection: str,
        text: str,
        *,
        mode: str = "hybrid",
        rerank: bool = False,
        key: str | None = None,
    ) -> Iterator[Asked]:
        """The question, for as long as it is answered; how that ends, also by an error, is what is kept."""
        asked = Asked(key or fresh_key())
        about = partial(self._ended, asked, collection, kind, mode, rerank, text)
        try:
            yield asked
        except (NotFound, InvalidInput):  # no question: who invents names must not push those of others out of the log
            raise
        except Exception as raised:
            about("failed", raised.code if isinstance(raised, RagworksError) else RagworksError.code)
            raise
        except BaseException:  # cancelled, or closed: who asked is gone
            about(_outcome(kind, asked))
            raise
        else:
            about(_outcome(kind, asked))

    def _ended(
        self,
        asked: Asked,
        collection: str,
        kind: str,
        mode: str,
        rerank: bool,
        text: str,
        outcome: str,
        error: str = "",
    ) -> None:
        self._on_question(kind, outcome)
        if self._mode == "off":
            return
        request = str(structlog.contextvars.get_contextvars().get("request_id", ""))
        kept = text if self._mode == "full" else None
        self._behind.add(
            Question(
                asked.key, self._clock.now(), request, collection, kind, mode, outcome, error, text=kept,
                **_seen(asked, rerank),
            )
        )  # fmt: skip

    async def rate(self, collection: str, key: str, rating: Rating, comment: str | None) -> bool:
        """Note what somebody thought of an answer; whether the comment was kept. Once more is harmless.

        Raises QuestionNotFound, StorageFull.
        """
        kept = comment if self._mode == "full" else None
        await self._behind.flush()
        if self._mode == "off" or not await self._queries.rate(collection, key, rating, kept):
            raise QuestionNotFound(collection, key, self._mode)
        self._on_feedback(rating)
        return kept is not None

    async def since(self, at: float) -> Sequence[Question]:
        """All that are kept and not older, oldest first, with those of now."""
        await self._behind.flush()
        return await self._queries.since(at)

    async def _append(self, questions: list[Question]) -> None:
        await self._queries.append(questions)


def _outcome(kind: str, asked: Asked) -> str:
    if asked.found is None or (kind == "ask" and asked.answer is None):
        return "left"
    if not asked.found.hits:
        return "nothing"
    return "abstained" if asked.answer is not None and asked.answer.abstained else "answered"


def _seen(asked: Asked, rerank: bool) -> dict[str, Any]:
    found, answer = asked.found, asked.answer
    seen: dict[str, Any] = {}
    if found is not None:
        documents = tuple(dict.fromkeys(hit.document_id for hit in found.hits))[:MAX_DOCUMENTS]
        seen |= {"hits": len(found.hits), "documents": documents, "cached": found.cached}
        seen |= {"best_score": found.hits[0].score if found.hits else None, "seconds": _steps(found.timings, rerank)}
    if answer is not None:
        cited = tuple(dict.fromkeys(one.document_id for one in answer.citations))
        seen |= {"cited": cited, "support": answer.support, "generator": answer.model, "tokens": _tokens(answer)}
        seen |= {"seconds": _steps(answer.timings, rerank)}
    return seen


def _steps(timings: Mapping[str, float], rerank: bool) -> dict[str, float]:
    """A rerank that nobody asked for took no time, which would only lower the figures of those that did."""
    return {step: round(seconds, 6) for step, seconds in timings.items() if step != "rerank" or rerank}


def _tokens(answer: Answer) -> int | None:
    known = [answer.usage[name] for name in ("prompt_tokens", "completion_tokens") if name in answer.usage]
    return sum(known) if known else None
