"""What it takes to write an answer, as whoever waits for it sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from ragworks.control.metrics import Metrics
from ragworks.protocols import Clock, Generator
from ragworks.types import Draft, Hit, Turn

SERVICE = "generation_service"
TOKENS = {"input": "prompt_tokens", "output": "completion_tokens"}
"""Where the endpoint of a chat model says what it read and wrote. One that does not say so counts for nothing."""


class Measured:
    """A Generator that tells ``metrics`` of each answer that another one finished."""

    def __init__(self, generator: Generator, clock: Clock, metrics: Metrics) -> None:
        self._generator, self._clock, self._metrics = generator, clock, metrics

    @property
    def name(self) -> str:
        return self._generator.name

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        began, said = self._clock.monotonic(), False
        pieces = self._generator.generate(question, history, hits)
        async with aclosing(pieces):  # type: ignore[type-var]  # an asynchronous generator behind every protocol
            async for piece in pieces:
                if isinstance(piece, Draft):
                    self._metrics.generated(self._clock.monotonic() - began)
                    for kind, key in TOKENS.items():
                        self._metrics.tokens(SERVICE, kind, piece.usage.get(key, 0))
                elif not said:
                    said = True
                    self._metrics.first_token(self._clock.monotonic() - began)
                yield piece
