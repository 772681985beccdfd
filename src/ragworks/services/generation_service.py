"""Hits to a streamed answer: passes a generator through, keeps its numbers, and answers for its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from ragworks import gen_ai, tracing
from ragworks.errors import NotReady
from ragworks.protocols import Clock, Generator
from ragworks.types import Draft, Health, Hit, ServiceHealth, Turn

NAME = "generation_service"
UNHEALTHY_AFTER = 3


class GenerationService:
    """Service around one Generator. ``note_cited`` hears how many citations resolved, for ``stats``.

    ``load``, if given, is run in a thread by ``initialize`` and raises what keeps the generator from working;
    ``close`` is awaited by ``shutdown``.
    """

    def __init__(
        self,
        generator: Generator,
        clock: Clock,
        load: Callable[[], object] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._generator, self._clock, self._load, self._close = generator, clock, load, close
        self._running = False
        self._failures_in_a_row = 0
        self._last_failure = ""
        self._counts = {"answers": 0, "abstentions": 0, "errors": 0, "removed_citations": 0, "active": 0}

    @property
    def name(self) -> str:
        """The generator's name, for the ``model`` of an answer."""
        return self._generator.name

    async def initialize(self) -> None:
        if self._load is not None:
            await asyncio.to_thread(self._load)
        self._running = True

    async def shutdown(self) -> None:
        self._running = False
        if self._close is not None:
            await self._close()

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        """The generator's pieces, then its Draft. Raises NotReady when stopped, and what the generator raises."""
        if not self._running:
            raise NotReady("generation_service is not running; try again when it is up")
        self._counts["active"] += 1
        span = gen_ai.chat(self.name, getattr(self._generator, "provider", gen_ai.OURS), question, history, hits)
        pieces, told = tracing.streamed(span, self._generator.generate(question, history, hits)), list[str]()
        try:
            async for piece in pieces:
                if isinstance(piece, Draft):
                    self._finished(piece)
                    gen_ai.written(span, piece, "".join(told))
                elif tracing.captures_text():
                    told.append(piece)
                yield piece
        except Exception as error:
            self._failed(error)
            raise
        finally:
            self._counts["active"] -= 1
            if isinstance(pieces, AsyncGenerator):  # else a caller that leaves early would not stop the work
                await pieces.aclose()

    def note_cited(self, resolved: int, removed: int) -> None:
        self._counts["removed_citations"] += removed

    async def check_health(self) -> ServiceHealth:
        details: dict[str, Any] = {"generator": self.name}
        status = Health.HEALTHY
        if not self._running:
            status, details["reason"] = Health.UNHEALTHY, "the service is not running"
        elif self._failures_in_a_row:
            status = Health.UNHEALTHY if self._failures_in_a_row >= UNHEALTHY_AFTER else Health.DEGRADED
            details["reason"] = f"the last {self._failures_in_a_row} answers failed: {self._last_failure}"
        return ServiceHealth(
            NAME, status, error_count=self._counts["errors"], last_check=self._clock.now(), details=details
        )

    def stats(self) -> Mapping[str, Any]:
        return dict(self._counts)

    def _finished(self, draft: Draft) -> None:
        self._counts["answers"] += 1
        self._counts["abstentions"] += draft.abstained
        self._failures_in_a_row = 0

    def _failed(self, error: Exception) -> None:
        self._counts["errors"] += 1
        self._failures_in_a_row += 1
        self._last_failure = str(error) or type(error).__name__
