"""READ SECOND: how a question becomes an answer.

question -> embed -> retrieve -> generate -> check citations -> answer
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from ragworks.protocols import Generator, Retriever
from ragworks.text.cite import cite
from ragworks.types import Answer, Draft, Turn


async def answer(
    collection: str,
    question: str,
    *,
    history: Sequence[Turn],
    top_k: int,
    retriever: Retriever,
    generator: Generator,
    on_cited: Callable[[int, int], None],
) -> AsyncIterator[str | Answer]:
    """The answer's text in pieces as it is written, then the whole Answer, in which every citation resolves.

    ``on_cited`` is told how many citations resolved, and how many did not and were taken out.
    """
    started = time.perf_counter()
    found = await retriever.search(collection, question, top_k=top_k, history=history)
    retrieved = time.perf_counter()
    pieces: list[str] = []
    draft = Draft(quotes={}, abstained=True, usage={})
    async for piece in generator.generate(question, history, found.hits):
        if isinstance(piece, Draft):
            draft = piece
        else:
            pieces.append(piece)
            yield piece
    text, citations, removed = cite("".join(pieces), draft, found.hits)
    on_cited(len(citations), removed)
    yield Answer(
        answer=text,
        abstained=draft.abstained,
        citations=tuple(citations),
        model=draft.model or generator.name,
        usage=draft.usage,
        timings={**found.timings, "generate": time.perf_counter() - retrieved, "total": time.perf_counter() - started},
        support=draft.support,
    )
