"""Spans of what models do, by the names of OpenTelemetry's conventions (``gen_ai.*``, which have a repository of their
own). Texts are in them only where traces capture texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ragworks import tracing
from ragworks.tracing import Attributes, Off, Span
from ragworks.types import Draft, Embeddings, Hit, Mode, SearchResult, Turn

OURS = "ragworks"
"""The provider of what runs here or in a replica. What speaks OpenAI's form is ``openai``, whoever answers it."""
_TOKENS = {"prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens"}


def retrieval(collection: str, query: str, top_k: int, mode: Mode) -> Span | Off:
    """Of a search, within a request, or the first of a trace when a program calls."""
    attributes = _operation("retrieval", OURS) | {
        "gen_ai.data_source.id": collection,
        "gen_ai.retrieval.top_k": top_k,
        "ragworks.mode": mode,
    }
    if tracing.captures_text():
        attributes["gen_ai.retrieval.query.text"] = query
    return tracing.entry(f"retrieval {collection}", attributes)


def found(span: Span | Off, result: SearchResult) -> None:
    if isinstance(span, Off):
        return
    span.set("ragworks.hits", len(result.hits))
    span.set("ragworks.degraded", result.degraded is not None)
    if tracing.captures_text():
        hits = [{"id": hit.document_id, "score": hit.score, "content": hit.text} for hit in result.hits]
        span.set("gen_ai.retrieval.documents", _json(hits))


def embeddings(model: str, provider: str, texts: int, dimension: int) -> Span | Off:
    attributes = _operation("embeddings", provider) | {
        "gen_ai.request.model": model,
        "gen_ai.embeddings.dimension.count": dimension,
        "ragworks.texts": texts,
    }
    return tracing.span(f"embeddings {model}", attributes, "client")


def embedded(span: Span | Off, result: Embeddings) -> None:
    if isinstance(span, Off):
        return
    span.set("gen_ai.response.model", result.model_used)
    span.set("ragworks.cache_hits", int(result.cache_stats["cache_hits"]))
    span.set("ragworks.failed_texts", len(result.failed))


def chat(model: str, provider: str, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> Span | Off:
    """Of the writing of an answer, whoever writes it."""
    attributes = _operation("chat", provider) | {"gen_ai.request.model": model, "ragworks.passages": len(hits)}
    if tracing.captures_text():
        said = [(turn.role, turn.content) for turn in history] + [("user", question)]
        attributes["gen_ai.input.messages"] = _messages(said)
    return tracing.span(f"chat {model}", attributes, "client")


def written(span: Span | Off, draft: Draft, text: str) -> None:
    if isinstance(span, Off):
        return
    span.set("ragworks.abstained", draft.abstained)
    if draft.model:
        span.set("gen_ai.response.model", draft.model)
    for name, called in _TOKENS.items():
        if name in draft.usage:
            span.set(called, draft.usage[name])
    if tracing.captures_text():
        span.set("gen_ai.output.messages", _messages([("assistant", text)]))


def _operation(name: str, provider: str) -> Attributes:
    return {"gen_ai.operation.name": name, "gen_ai.provider.name": provider}


def _messages(said: Iterable[tuple[str, str]]) -> str:
    return _json([{"role": role, "parts": [{"type": "text", "content": content}]} for role, content in said])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
