"""Routes that OpenAI's clients know: a collection is a model that answers, the embedding model embeds."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from ragworks.api import schemas
from ragworks.api.answer_routes import CHAT_ID, whole
from ragworks.api.bodies import accepts, body
from ragworks.api.context import MAX_PAGE, app_of, needs, request_id_of
from ragworks.api.streaming import EventStream, attended, closed, primed, unnamed, with_errors
from ragworks.control.questions import fresh_key
from ragworks.errors import CollectionNotFound, EmbeddingFailed, InvalidInput, NotFound
from ragworks.types import Answer, Embeddings, Turn

router = APIRouter(tags=["OpenAI"])

MAX_INPUTS = 2048


class ModelNotFound(NotFound):
    code = "model_not_found"


class OpenAIRequest(BaseModel):
    """OpenAI's clients send many fields that do not apply here; they are ignored, so that clients work unchanged."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str


class EmbeddingsRequest(OpenAIRequest):
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    input_type: Literal["passage", "question"] = "passage"


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: str
    text: str = ""


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None

    def words(self) -> str:
        """The text of the message, whichever form it has."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class ChatRequest(OpenAIRequest):
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None


REQUESTS: tuple[type[BaseModel], ...] = (EmbeddingsRequest, ChatRequest)


@router.get("/v1/models", dependencies=[needs("vector_store")])
async def list_models(request: Request) -> dict[str, Any]:
    """The embedding model first, then the collections."""
    app = app_of(request)
    names = [app.settings.embeddings_service.model]
    after: str | None = None
    while True:
        page = await app.vector_store.collections(MAX_PAGE, after)
        names += [collection.name for collection in page.data]
        if not page.has_more:
            return {"object": "list", "data": [_model(name) for name in names]}
        after = page.last_id


@router.get("/v1/models/{model:path}", dependencies=[needs("vector_store")])
async def get_model(request: Request, model: str) -> dict[str, Any]:
    """The embedding model, or a collection, by its name."""
    app = app_of(request)
    if model != app.settings.embeddings_service.model:
        try:
            await app.vector_store.collection(model)
        except CollectionNotFound as error:
            raise ModelNotFound(f"there is no model {model!r}; GET /v1/models lists those there are") from error
    return _model(model)


@router.post("/v1/embeddings", dependencies=[needs("embeddings_service")], openapi_extra=accepts(EmbeddingsRequest))
async def embed(
    request: Request, wanted: Annotated[EmbeddingsRequest, Depends(body(EmbeddingsRequest))]
) -> dict[str, Any]:
    """Embed texts; ``input_type: question`` embeds them as questions. ``truncated`` names texts that were cut."""
    app = app_of(request)
    known, embedder = app.settings.embeddings_service.model, app.embeddings_service
    if wanted.model != known:
        raise ModelNotFound(f"there is no embedding model {wanted.model!r}; this server runs {known!r}")
    if wanted.dimensions not in (None, embedder.dimension):
        size = embedder.dimension
        raise InvalidInput(f"dimensions: expected {size}, which {known} answers, or none, found {wanted.dimensions}")
    texts = _texts(wanted.input)
    made = await embedder.embed_texts(texts, kind=wanted.input_type)
    rows = [
        {"object": "embedding", "index": index, "embedding": _vector(row, wanted.encoding_format)}
        for index, row in enumerate(_rows(made))
    ]
    tokens = await embedder.count_tokens(texts, wanted.input_type)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    cut = {"truncated": list(made.truncated)} if made.truncated else {}
    return {"object": "list", "data": rows, "model": known, "usage": usage, **cut}


@router.post(
    "/v1/chat/completions",
    dependencies=[needs("retrieval_service", "generation_service")],
    response_model=None,
    openapi_extra=accepts(ChatRequest),
)
async def complete(
    request: Request, wanted: Annotated[ChatRequest, Depends(body(ChatRequest))]
) -> dict[str, Any] | EventStream:
    """Answer the last user message from the collection that ``model`` names; ``citations`` is an extra field."""
    app = app_of(request)
    question, history = _conversation(wanted.messages)
    key = fresh_key()
    pieces = app.ask(wanted.model, question, history=history, key=key)
    envelope = {"id": f"{CHAT_ID}{key}", "created": int(time.time()), "model": wanted.model}
    if not wanted.stream:
        return _completion(envelope, await attended(request, whole(pieces)))
    usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    chunks = _chunks(envelope, await primed(pieces), usage)
    return EventStream(
        with_errors(chunks, lambda problem: unnamed(problem.openai()), request_id_of(request), app.metrics)
    )


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ragworks"}


def _texts(given: str | list[Any]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if len(texts) > MAX_INPUTS:
        raise InvalidInput(f"input: expected at most {MAX_INPUTS} texts, found {len(texts)}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(
                f"input[{index}]: expected text, found {str(text)[:40]}; token ids of another model mean nothing "
                "here (LangChain: set check_embedding_ctx_length=False)"
            )
    return texts


def _rows(made: Embeddings) -> Sequence[Any]:
    if made.failed:
        first = made.failed[0]
        message = f"input[{first.index}] could not be embedded: {first.reason}"
        waits = [failure.retry_after_s for failure in made.failed if failure.transient]
        raise EmbeddingFailed(message, transient=bool(waits), retry_after_s=max(waits, default=1.0))
    return made.embeddings


def _vector(row: Any, encoding: str) -> str | list[float]:
    values = np.asarray(row, dtype="<f4")
    return base64.b64encode(values.tobytes()).decode() if encoding == "base64" else [float(value) for value in values]


def _conversation(messages: Sequence[Message]) -> tuple[str, list[Turn]]:
    last = messages[-1]
    question = last.words()
    if last.role != "user" or not question.strip():
        raise InvalidInput(f"messages: expected the user's question last, found role {last.role!r}, {question[:40]!r}")
    if len(question) > (most := schemas.MAX_QUERY_CHARACTERS):
        raise InvalidInput(f"messages: expected a question of at most {most} characters, found {len(question)}")
    history = [Turn(one.role, one.words()) for one in messages[:-1] if one.role == "user" or one.role == "assistant"]
    return question, history


def _completion(envelope: dict[str, Any], answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {"object": "chat.completion", **envelope, "choices": [choice], "usage": _usage(answer), **_extras(answer)}


async def _chunks(
    envelope: dict[str, Any], pieces: AsyncIterator[str | Answer], usage: bool
) -> AsyncGenerator[bytes, None]:
    head = {"object": "chat.completion.chunk", **envelope}
    yield unnamed({**head, "choices": [_delta({"role": "assistant", "content": ""})]})
    try:
        async for piece in pieces:
            if isinstance(piece, str):
                yield unnamed({**head, "choices": [_delta({"content": piece})]})
                continue
            yield unnamed({**head, "choices": [_delta({}, "stop")], **_extras(piece)})
            if usage:
                yield unnamed({**head, "choices": [], "usage": _usage(piece)})
    finally:
        await closed(pieces)
    yield b"data: [DONE]\n\n"


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def _extras(answer: Answer) -> dict[str, Any]:
    wire = schemas.AskResponse.model_validate(answer).model_dump(mode="json")
    return {"citations": wire["citations"], "abstained": wire["abstained"]}


def _usage(answer: Answer) -> dict[str, int]:
    read, written = answer.usage.get("prompt_tokens", 0), answer.usage.get("completion_tokens", 0)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
