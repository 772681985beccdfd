"""Routes of questions: search finds passages, ask answers from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from ragworks.api import schemas
from ragworks.api.bodies import accepts, body
from ragworks.api.context import app_of, needs, problems, request_id_of
from ragworks.api.streaming import EventStream, attended, closed, event, primed, with_errors
from ragworks.errors import RagworksError
from ragworks.types import Answer, Turn

router = APIRouter(tags=["questions"])

CHAT_ID = "chatcmpl-"
"""What stands before the id of an answer on OpenAI's route."""

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.AskResponse,
        "description": "the answer; with `stream`: `event: delta` with pieces of text, then one `event: answer`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/v1/collections/{name}/search",
    dependencies=[needs("retrieval_service")],
    responses=problems(400, 404, 409, 413, 415, 422, 429),
    openapi_extra=accepts(schemas.SearchRequest),
)
async def search(
    request: Request, name: str, wanted: Annotated[schemas.SearchRequest, Depends(body(schemas.SearchRequest))]
) -> schemas.SearchResponse:
    """Find the passages nearest to a question, best first."""
    found = await app_of(request).search(
        name,
        wanted.query,
        top_k=wanted.top_k,
        filter=wanted.filter,
        mode=wanted.mode,
        rerank=wanted.rerank,
        history=turns(wanted.history),
        group_by=wanted.group_by,
    )
    return schemas.search_response(found)


@router.post(
    "/v1/collections/{name}/ask",
    dependencies=[needs("retrieval_service", "generation_service")],
    response_model=None,
    responses={**problems(400, 404, 409, 413, 415, 422, 429), **STREAM},
    openapi_extra=accepts(schemas.AskRequest),
)
async def ask(
    request: Request, name: str, wanted: Annotated[schemas.AskRequest, Depends(body(schemas.AskRequest))]
) -> schemas.AskResponse | EventStream:
    """Answer a question from the collection's documents, with citations."""
    app = app_of(request)
    pieces = app.ask(name, wanted.question, history=turns(wanted.history), top_k=wanted.top_k)
    if not wanted.stream:
        return schemas.AskResponse.model_validate(await attended(request, whole(pieces)))
    events = _answer_events(await primed(pieces))
    return EventStream(
        with_errors(events, lambda problem: event("error", problem.body), request_id_of(request), app.metrics)
    )


@router.post(
    "/v1/collections/{name}/feedback",
    responses=problems(400, 404, 413, 415, 422, 507),
    openapi_extra=accepts(schemas.FeedbackRequest),
)
async def feedback(
    request: Request, name: str, wanted: Annotated[schemas.FeedbackRequest, Depends(body(schemas.FeedbackRequest))]
) -> schemas.Feedback:
    """Say what an answer was worth, by the ``id`` that it carried. Said again, the last word counts.

    A comment is kept only where ``query_log.mode`` is full, as the texts of questions are.
    """
    key = wanted.id.removeprefix(CHAT_ID)
    kept = await app_of(request).questions.rate(name, key, wanted.rating, wanted.comment)
    return schemas.Feedback(id=wanted.id, rating=wanted.rating, comment_kept=kept)


def turns(history: Sequence[schemas.TurnRequest]) -> list[Turn]:
    return [Turn(turn.role, turn.content) for turn in history]


async def whole(pieces: AsyncIterator[str | Answer]) -> Answer:
    """The answer at the end of ``pieces``."""
    try:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    finally:
        await closed(pieces)
    raise RagworksError("expected an answer at the end of the stream, found none; the generator broke its contract")


async def _answer_events(pieces: AsyncIterator[str | Answer]) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in pieces:
            if isinstance(piece, Answer):
                yield event("answer", schemas.AskResponse.model_validate(piece).model_dump(mode="json"))
            else:
                yield event("delta", {"text": piece})
    finally:
        await closed(pieces)
