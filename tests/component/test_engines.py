"""What the front of the embeddings asks of its engines: pieces, order, and what it says when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.control.metrics import Metrics
from ragworks.errors import NotReady, ReplicaLost
from ragworks.services.embedding_engine import Computed, packed, unpacked
from ragworks.services.embeddings_service import PIECE_CHARACTERS, PIECE_TEXTS, EmbeddingsService
from ragworks.settings import EmbeddingsSettings
from ragworks.testing import FakeClock, settle
from ragworks.types import ModelCard, TextKind
from ragworks.workers.batcher import Batch, Embedded


class GatedEngine:
    """Answers one call at a time, when told; every vector says which text it is of."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.calls: list[Sequence[str]] = []
        self.gates: list[asyncio.Event] = []

    async def describe(self) -> ModelCard:
        return ModelCard("gated", "gated:1", 2)

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Computed:
        self.calls.append(list(texts))
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        angles = np.array([float(text.split()[0]) for text in texts], np.float32)
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return Computed(vectors, (), (), (len(texts),) * len(texts))

    async def count_tokens(self, texts: Sequence[str], kind: TextKind) -> int:
        return len(texts)

    @property
    def open(self) -> int:
        return sum(not gate.is_set() for gate in self.gates)


class MortalEngine(GatedEngine):
    """Made of lives: each makes batches, tells of those that it has not told of with an answer, or dies with them."""

    def __init__(self) -> None:
        super().__init__()
        self.untold: list[Batch] = []
        self.dies = False

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Computed:
        if self.dies:
            self.untold = []
            raise ReplicaLost("killed")
        told, self.untold = tuple(self.untold), []
        return Computed(np.ones((len(texts), 1), np.float32), (), (), (1,) * len(texts), told)


async def started(engine: GatedEngine, width: int) -> EmbeddingsService:
    service = EmbeddingsService(EmbeddingsSettings(), engine, None, FakeClock(), width=lambda: width)
    await service.initialize()
    return service


async def test_a_call_with_many_texts_goes_in_pieces_a_few_at_once_and_comes_back_in_order() -> None:
    """One caller must not take a turn for each of its pieces, nor keep a question behind a frame of 20 MB."""
    engine = GatedEngine()
    service = await started(engine, width=2)
    texts = [f"{number / 1000} words" for number in range(3 * PIECE_TEXTS + 1)]
    call = asyncio.create_task(service.embed_texts(texts))
    most = 0
    while not call.done():
        await settle()
        most = max(most, engine.open)
        for gate in reversed(engine.gates):
            gate.set()
    result = await call
    assert most == 2
    assert sorted(map(len, engine.calls)) == [1, PIECE_TEXTS, PIECE_TEXTS, PIECE_TEXTS]
    angles = [np.arctan2(row[1], row[0]) for row in result.embeddings if row is not None]
    assert np.allclose(angles, [number / 1000 for number in range(len(texts))], atol=1e-5)
    assert service.stats()["queue_size"] == 0


async def test_long_texts_make_short_pieces_and_without_a_width_a_call_stays_whole() -> None:
    long = "9" * (PIECE_CHARACTERS // 2)
    for width, sizes in ((1, [1, 1, 1]), (0, [3])):
        engine = GatedEngine(NotReady("off"), NotReady("off"), NotReady("off"))
        service = await started(engine, width)
        call = asyncio.create_task(service.embed_texts([f"{n}.{long}" for n in range(3)]))
        while not call.done():
            await settle()
            for gate in engine.gates:
                gate.set()
        assert [len(piece) for piece in engine.calls] == sizes


@pytest.mark.parametrize(("error", "transient"), [(ReplicaLost("killed"), True), (KeyError("a bug"), False)])
async def test_a_piece_that_is_lost_fails_its_texts_and_no_others(error: Exception, transient: bool) -> None:
    engine = GatedEngine(None, error)
    service = await started(engine, width=1)
    call = asyncio.create_task(service.embed_texts([f"{n}" for n in range(PIECE_TEXTS + 2)]))
    for _ in range(2):
        await settle()
        engine.gates[-1].set()
    result = await call
    assert [(one.index, one.transient) for one in result.failed] == [
        (PIECE_TEXTS, transient),
        (PIECE_TEXTS + 1, transient),
    ]
    assert (await service.check_health()).details["queue_size"] == 0


def test_outcomes_survive_the_way_between_processes() -> None:
    row = np.array([0.6, 0.8], np.float32)
    outcomes = [
        Embedded(row, False, 3),
        Embedded(None, False, 3, "cursed"),
        Embedded(row, True, 2),
        Embedded(None, False, 1, "later", True, 7.0),
    ]
    made = packed(outcomes, 2)
    assert np.isnan(made.vectors[1]).all()  # never a zero vector
    again = unpacked(made)
    assert [(one.truncated, one.batch_size, one.reason, one.transient, one.retry_after_s) for one in again] == [
        (one.truncated, one.batch_size, one.reason, one.transient, one.retry_after_s) for one in outcomes
    ]
    assert [one.vector is None for one in again] == [False, True, False, True]


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9000), max_size=4)), max_size=20))
async def test_batches_are_counted_once_each_and_no_death_of_an_engine_takes_any_back(
    lives: list[tuple[bool, list[int]]],
) -> None:
    engine, metrics, told = MortalEngine(), Metrics(), 0
    service = EmbeddingsService(EmbeddingsSettings(), engine, None, FakeClock(), on_batch=metrics.batch)
    await service.initialize()
    for number, (dies, batches) in enumerate(lives):
        engine.dies = dies
        engine.untold += [Batch(tokens, 0.1) for tokens in batches]
        told += 0 if dies else len(engine.untold)
        await service.embed_texts([f"text {number}"])
        assert metrics.registry.get_sample_value("rag_embedding_batches_total") == told
        assert metrics.registry.get_sample_value("rag_embedding_batch_tokens_count") == told
