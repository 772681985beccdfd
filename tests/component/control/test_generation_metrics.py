"""How long answers take, what they read and wrote, and what that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from ragworks.control.generation_metrics import Measured
from ragworks.control.metrics import Metrics
from ragworks.testing import FakeClock, ScriptedGenerator
from ragworks.types import Draft, Hit, Turn

DURATION, FIRST = "rag_generation_duration_seconds", "rag_generation_first_token_seconds"


class Slow:
    """A generator that thinks for 2 s and writes for 3 s, and says what it used."""

    name = "slow"

    def __init__(self, clock: FakeClock, **usage: int) -> None:
        self.clock, self.usage = clock, usage

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        await self.clock.advance(2)
        yield "Yes "
        await self.clock.advance(3)
        yield "[1]."
        yield Draft({}, False, self.usage)


async def asked(metrics: Metrics, clock: FakeClock, **usage: int) -> None:
    pieces = [piece async for piece in Measured(Slow(clock, **usage), clock, metrics).generate("?", (), ())]
    assert pieces[:2] == ["Yes ", "[1]."]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_the_first_word_and_the_whole_answer_are_timed() -> None:
    metrics, clock = Metrics(), FakeClock()
    await asked(metrics, clock)
    assert [value(metrics, f"{name}_sum") for name in (FIRST, DURATION)] == [2.0, 5.0]
    assert [value(metrics, f"{name}_count") for name in (FIRST, DURATION)] == [1.0, 1.0]


async def test_an_answer_that_failed_or_that_nobody_read_to_its_end_has_no_duration() -> None:
    metrics, generator = Metrics(), ScriptedGenerator(["one", "two"])
    async with aclosing(Measured(generator, FakeClock(), metrics).generate("?", (), ())) as left:  # type: ignore[type-var]
        assert await anext(left) == "one"
    assert generator.closed
    with pytest.raises(RuntimeError):
        async for _ in Measured(ScriptedGenerator((), error=RuntimeError("no")), FakeClock(), metrics).generate(
            "?", (), ()
        ):
            pass
    assert (value(metrics, f"{FIRST}_count"), value(metrics, f"{DURATION}_count")) == (1.0, 0.0)


async def test_tokens_cost_what_the_settings_say_and_without_a_price_nothing_is_said() -> None:
    metrics, clock = Metrics(), FakeClock()
    await asked(metrics, clock, prompt_tokens=1000, completion_tokens=200, total_tokens=1200)
    await asked(metrics, clock, scored_sentences=12)
    labels = {"service": "generation_service"}
    assert value(metrics, "rag_tokens_total", kind="input", **labels) == 1000
    assert value(metrics, "rag_tokens_total", kind="output", **labels) == 200
    assert value(metrics, "rag_cost_total", **labels) is None
    metrics.price("generation_service", "input", 0.5)
    metrics.price("generation_service", "output", 2.0)
    metrics.price("embeddings_service", "input", 0.0)
    assert value(metrics, "rag_cost_total", **labels) == 0
    await asked(metrics, clock, prompt_tokens=1000, completion_tokens=200)
    assert value(metrics, "rag_cost_total", **labels) == pytest.approx((1000 * 0.5 + 200 * 2.0) / 1e6)
    assert value(metrics, "rag_cost_total", service="embeddings_service") is None
