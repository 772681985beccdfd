import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworks import tracing
from ragworks.errors import EmbeddingFailed, NotReady
from ragworks.models.hashing import HashingEmbedder
from ragworks.policies.batching import BatchSettings
from ragworks.testing import FakeClock, ScriptedModel, settle, until
from ragworks.workers.batcher import MEASURED_AT_ONCE, Batcher, bisected, checked
from recorded_traces import RecordedTraces

SMALL = BatchSettings(batch_size=4, batch_tokens=20)


@asynccontextmanager
async def running(model, batching=SMALL, clock=None, **options) -> AsyncIterator[Batcher]:
    async with asyncio.timeout(20), Batcher(model, batching, clock or FakeClock(), **options) as batcher:
        yield batcher


def expected(text: str, kind="passage"):
    return HashingEmbedder().embed([text], kind)[0]


async def test_results_come_in_the_order_of_the_call_whatever_the_batches():
    texts = [f"{'word ' * (n % 7)}number{n}" for n in range(40)]
    async with running(ScriptedModel()) as batcher:
        results = await batcher.embed(texts, "passage")
    assert all(np.allclose(one.vector, expected(text)) for one, text in zip(results, texts, strict=True))


async def test_concurrent_calls_share_batches():
    model = ScriptedModel()
    async with running(model) as batcher:
        model.gate.clear()
        first = asyncio.create_task(batcher.embed(["blocks"], "passage"))
        await until(lambda: model.batches)
        calls = [asyncio.create_task(batcher.embed([f"text{n}"], "passage")) for n in range(4)]
        await settle()
        model.gate.set()
        await asyncio.gather(first, *calls)
    assert [len(batch) for _, batch in model.batches] == [1, 4]


async def test_a_question_waits_for_the_running_batch_at_most():
    model = ScriptedModel()
    async with running(model) as batcher:
        model.gate.clear()
        bulk = asyncio.create_task(batcher.embed([f"text{n}" for n in range(40)], "passage"))
        await until(lambda: model.batches)
        question = asyncio.create_task(batcher.embed(["urgent"], "question"))
        await settle()
        model.gate.set()
        await asyncio.gather(bulk, question)
    assert model.batches[1] == ("question", ("urgent",))


async def test_the_texts_of_a_cancelled_caller_are_dropped():
    model = ScriptedModel()
    async with running(model) as batcher:
        model.gate.clear()
        first = asyncio.create_task(batcher.embed(["blocks"], "passage"))
        await until(lambda: model.batches)
        gone = asyncio.create_task(batcher.embed([f"gone{n}" for n in range(9)], "passage"))
        kept = asyncio.create_task(batcher.embed(["kept"], "passage"))
        await settle()
        gone.cancel()
        await settle()
        model.gate.set()
        await asyncio.gather(first, kept)
        assert batcher.waiting == 0
    assert model.texts == ["blocks", "kept"]


async def test_cancelling_the_caller_of_the_running_batch_harms_nobody():
    model = ScriptedModel()
    async with running(model) as batcher:
        model.gate.clear()
        gone = asyncio.create_task(batcher.embed(["gone"], "passage"))
        await until(lambda: model.batches)
        gone.cancel()
        await settle()
        model.gate.set()
        assert (await batcher.embed(["next"], "passage"))[0].vector is not None


async def test_one_bad_text_fails_alone_with_its_reason():
    texts = [f"t{n}" for n in range(16)]
    async with running(ScriptedModel(bad=["t5"]), BatchSettings(16, 1000)) as batcher:
        results = await batcher.embed(texts, "passage")
    assert [n for n, one in enumerate(results) if one.vector is None] == [5]
    assert results[5].reason == "cannot read 't5'"
    assert batcher.failures_in_a_row == 0


async def test_a_transient_error_fails_the_batch_at_once_and_says_so():
    model = ScriptedModel(broken=EmbeddingFailed("the endpoint is busy", transient=True))
    async with running(model) as batcher:
        results = await batcher.embed(["a", "b", "c"], "passage")
    assert {(one.reason, one.transient) for one in results} == {("the endpoint is busy", True)}
    assert len(model.batches) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(lambda row: row * np.nan, "not finite"), (lambda row: row * 0, "length 0"), (lambda row: row * 3, "length 3")],
)
async def test_a_vector_that_is_no_unit_vector_is_a_failure_never_a_result(fault, reason):
    """A first sketch of this system wrote zero vectors for failed texts and reported success."""
    model = ScriptedModel()

    def spoil(texts, vectors):
        return np.vstack([fault(row) if text == "bad" else row for text, row in zip(texts, vectors, strict=True)])

    model.rewrite = spoil
    async with running(model) as batcher:
        good, bad = await batcher.embed(["good", "bad"], "passage")
    assert good.vector is not None
    assert bad.vector is None
    assert reason in bad.reason


@pytest.mark.parametrize("shape", [(1, 7), (2, 256), (256,), (0, 256)])
def test_an_answer_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape .* where float32 of shape \(1, 256\) was expected"):
        checked(np.ones(shape, np.float32), 1, 256)


async def test_a_text_that_cannot_be_measured_fails_alone():
    class Unmeasurable(ScriptedModel):
        def lengths(self, texts, kind):
            if "odd" in texts:
                raise ValueError("cannot tokenise")
            return super().lengths(texts, kind)

    async with running(Unmeasurable()) as batcher:
        results = await batcher.embed(["even", "odd", "fair"], "passage")
    assert [one.reason for one in results] == ["", "cannot tokenise", ""]


async def test_a_text_over_the_limit_is_marked_as_truncated():
    async with running(ScriptedModel()) as batcher:
        short, long = await batcher.embed(["short", "word " * 600], "passage")
    assert (short.truncated, long.truncated) == (False, True)


async def test_passages_held_back_for_a_fuller_batch_go_when_their_time_is_over():
    clock, model = FakeClock(), ScriptedModel()
    async with running(model, BatchSettings(4, 1000, max_wait_s=2.0), clock) as batcher:
        call = asyncio.create_task(batcher.embed(["lonely"], "passage"))
        await until(lambda: clock.sleepers)
        assert model.batches == []
        await clock.advance(2.0)
        await call
    assert model.texts == ["lonely"]


async def test_leaving_finishes_what_waits_and_then_refuses():
    model = ScriptedModel()
    model.gate.clear()
    batcher = Batcher(model, SMALL, FakeClock())
    async with asyncio.timeout(20):
        async with batcher:
            call = asyncio.create_task(batcher.embed([f"t{n}" for n in range(30)], "passage"))
            await until(lambda: model.batches)
            model.gate.set()
        assert all(one.vector is not None for one in await call)
        with pytest.raises(NotReady):
            await batcher.embed(["late"], "passage")


async def test_an_exit_that_is_cut_short_leaves_no_caller_waiting():
    model = ScriptedModel()
    model.gate.clear()
    batcher = await Batcher(model, SMALL, FakeClock()).__aenter__()
    call = asyncio.create_task(batcher.embed([f"t{n}" for n in range(30)], "passage"))
    await until(lambda: model.batches)
    leaving = asyncio.create_task(batcher.__aexit__(None, None, None))
    await settle()
    leaving.cancel()
    results = await asyncio.wait_for(call, 20)
    model.gate.set()
    assert {one.transient for one in results} == {True}


async def test_more_texts_than_the_window_holds_are_answered_in_order_too():
    texts = [f"t{n}" for n in range(20)]
    async with running(ScriptedModel(), window=3) as batcher:
        results = await batcher.embed(texts, "passage")
    assert all(np.allclose(one.vector, expected(text)) for one, text in zip(results, texts, strict=True))


class MeasuringModel(ScriptedModel):
    """Remembers how many texts were measured in one go."""

    def __init__(self) -> None:
        super().__init__()
        self.measured = []

    def lengths(self, texts, kind):
        self.measured.append(len(texts))
        return super().lengths(texts, kind)


async def test_a_caller_of_ten_thousand_texts_does_not_delay_one_of_five():
    """A line in order of arrival answers the five after the ten thousand."""
    model = MeasuringModel()
    async with running(model, BatchSettings(4, 1000)) as batcher:
        model.gate.clear()
        big = asyncio.create_task(batcher.embed([f"big {n}" for n in range(10_000)], "passage"))
        await until(lambda: model.batches)
        small = asyncio.create_task(batcher.embed([f"small number {'x ' * n}" for n in range(5)], "passage"))
        await settle()
        model.gate.set()
        await small
        batches = len(model.batches)
        big.cancel()
        await asyncio.gather(big, return_exceptions=True)
    assert batches <= 1 + 2 * 5 + 1  # the running one, two callers of which one has five texts, and one begun since
    assert max(model.measured) <= MEASURED_AT_ONCE


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 40))
async def test_beside_others_a_caller_of_n_texts_is_answered_after_n_rounds(sizes, batch_size, window):
    """k callers, n texts: at most k * n batches, whatever the sizes of batch and window."""
    model, done = ScriptedModel(), {}
    async with running(model, BatchSettings(batch_size, 1000), window=window) as batcher:

        async def call(caller: int, size: int) -> None:
            await batcher.embed([f"caller{caller} {'x ' * n}" for n in range(size)], "passage")
            done[caller] = len(model.batches)

        model.gate.clear()
        first = asyncio.create_task(batcher.embed(["blocks"], "passage"))
        await until(lambda: model.batches)
        calls = [asyncio.create_task(call(caller, size)) for caller, size in enumerate(sizes)]
        await settle()
        model.gate.set()
        await asyncio.gather(first, *calls)
    for caller, size in enumerate(sizes):
        assert done[caller] <= 1 + len(sizes) * size + 1, (sizes, done)


@given(st.lists(st.integers(), max_size=40), st.sets(st.integers(), max_size=5))
def test_bisecting_fails_exactly_the_bad_items(items, bad):
    def call(part):
        if bad & set(part):
            raise ValueError
        return [item * 2 for item in part]

    results = bisected(call, items)
    assert [isinstance(one, ValueError) for one in results] == [item in bad for item in items]
    assert all(isinstance(one, ValueError) or one == item * 2 for item, one in zip(items, results, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
async def test_any_interleaving_of_callers_cancels_and_bad_texts_gives_each_its_own_vectors(seed):
    rng = random.Random(seed)
    model = ScriptedModel(bad=[f"bad{n}" for n in range(100)])
    sizes = BatchSettings(rng.randint(1, 8), rng.randint(5, 60))
    async with running(model, sizes, window=rng.randint(1, 30)) as batcher:
        calls = []
        for caller in range(12):
            kind = rng.choice(["passage", "question"])
            texts = [
                rng.choice([f"w{caller} {'x ' * rng.randint(0, 9)}", f"bad{caller}"]) for _ in range(rng.randint(0, 9))
            ]
            calls.append((texts, kind, asyncio.create_task(batcher.embed(texts, kind))))
            for _ in range(rng.randint(0, 30)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                rng.choice(calls)[2].cancel()
        outcomes = await asyncio.gather(*(task for _, _, task in calls), return_exceptions=True)
        await settle()
        assert batcher.waiting == 0
    for (texts, kind, _), outcome in zip(calls, outcomes, strict=True):
        if not isinstance(outcome, asyncio.CancelledError):
            assert [one.vector is None for one in outcome] == [text.startswith("bad") for text in texts]
            assert all(
                one.vector is None or np.allclose(one.vector, expected(text, kind))
                for text, one in zip(texts, outcome, strict=True)
            )


async def test_each_batch_is_remembered_with_its_tokens_as_the_model_reads_them_and_its_time():
    model, clock = ScriptedModel(), FakeClock()
    model.max_tokens = 3
    async with running(model, clock=clock) as batcher:
        model.gate.clear()
        call = asyncio.create_task(batcher.embed(["one two", "a text that is cut"], "passage"))
        await until(lambda: model.batches)
        await clock.advance(0.5)
        model.gate.set()
        await call
        [batch] = batcher.untold
    tokens = sum(min(3, one) for one in model.lengths(["one two", "a text that is cut"], "passage"))
    assert (batch.tokens, batch.seconds) == (tokens, 0.5)


async def test_a_batch_is_a_span_of_each_call_that_has_texts_in_it():
    model = ScriptedModel()

    async def traced(name):
        with tracing.entry(name):
            await batcher.embed([name], "passage")

    with RecordedTraces() as traces:
        async with running(model) as batcher:
            model.gate.clear()
            first = asyncio.create_task(traced("blocks"))
            await until(lambda: model.batches)
            calls = [asyncio.create_task(traced(name)) for name in ("one", "two")]
            nobodys = asyncio.create_task(batcher.embed(["of no trace"], "passage"))
            await settle()
            model.gate.set()
            await asyncio.gather(first, *calls, nobodys)
    assert traces.tree() == {name: {"batch": {}} for name in ("blocks", "one", "two")}
    shared = [one for one in traces.ended if one.name == "batch"][1:]
    assert [(one.attributes["ragworks.batch.texts"], one.attributes["ragworks.batch.calls"]) for one in shared] == [
        (3, 3),
        (3, 3),
    ]
