import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from ragworks.errors import CannotStart, ModelMissing, NotReady
from ragworks.services.embedding_engine import HUNG_AFTER_S
from ragworks.services.embeddings_service import embedding_key
from ragworks.settings import CacheSettings, EmbeddingsSettings
from ragworks.testing import FakeClock, LocalEmbeddings, ScriptedModel, settle, until
from ragworks.types import Health


class Stored:
    """The store's tier: a dict of vectors that counts who asks."""

    def __init__(self) -> None:
        self.vectors, self.asked = {}, []

    async def stored_vectors(self, keys):
        self.asked.append(list(keys))
        return {key: self.vectors[key] for key in keys if key in self.vectors}


@asynccontextmanager
async def running(model, stored=None, clock=None, **settings) -> AsyncIterator[LocalEmbeddings]:
    service = LocalEmbeddings(EmbeddingsSettings(**settings), lambda: model, stored, clock or FakeClock())
    async with asyncio.timeout(20):
        await service.initialize()
        model.batches.clear()  # the proof of initialize
        try:
            yield service
        finally:
            await service.shutdown()


async def test_vectors_come_in_order_with_what_was_used():
    model = ScriptedModel()
    async with running(model) as service:
        result = await service.embed_texts(["one", "two", "one"])
    assert np.array_equal(result.embeddings[0], result.embeddings[2])
    assert (result.model_used, result.batch_size_used, result.failed) == ("scripted", 2, ())
    assert sorted(model.texts) == ["one", "two"]
    assert result.cache_stats == {"cache_hits": 1, "cache_misses": 2, "cache_hit_rate": 1 / 3}


async def test_no_texts_give_an_empty_result_without_a_model_call():
    model = ScriptedModel()
    async with running(model) as service:
        result = await service.embed_texts([])
    assert (list(result.embeddings), result.failed, result.cache_stats["cache_hit_rate"]) == ([], (), 0.0)
    assert model.batches == []


async def test_the_second_call_is_answered_from_memory_until_its_time_is_over():
    clock, model = FakeClock(), ScriptedModel()
    async with running(model, clock=clock, cache_config=CacheSettings(100, 60.0)) as service:
        first = await service.embed_texts(["one"])
        again = await service.embed_texts(["one"])
        await clock.advance(61)
        await service.embed_texts(["one"])
    assert np.array_equal(first.embeddings[0], again.embeddings[0])
    assert (again.cache_stats["cache_hits"], again.batch_size_used) == (1, 0)
    assert model.texts == ["one", "one"]


async def test_without_the_memory_tier_every_call_goes_to_the_model():
    model = ScriptedModel()
    async with running(model, cache_enabled=False) as service:
        await service.embed_texts(["one"])
        await service.embed_texts(["one"])
    assert model.texts == ["one", "one"]


async def test_a_text_that_a_live_chunk_holds_costs_no_model_call():
    model, stored = ScriptedModel(), Stored()
    async with running(model, stored) as service:
        vector = np.eye(1, 256, dtype=np.float16)[0]
        stored.vectors[service.embedding_key("held")] = vector
        result = await service.embed_texts(["held", "new"])
        await service.embed_texts(["held"])
    assert np.array_equal(result.embeddings[0], vector)
    assert result.embeddings[0].dtype == np.float32
    assert model.texts == ["new"]
    assert len(stored.asked) == 1


@pytest.mark.parametrize(
    "vector",
    [np.eye(1, 7, dtype=np.float32)[0], np.zeros(256, np.float16), np.full(256, np.nan, np.float32), np.ones(256)],
    ids=["dimension", "zero", "nan", "length"],
)
async def test_a_stored_vector_that_is_no_embedding_of_this_model_is_made_anew(vector):
    model, stored = ScriptedModel(), Stored()
    async with running(model, stored) as service:
        stored.vectors[service.embedding_key("held")] = vector
        result = await service.embed_texts(["held"])
    assert model.texts == ["held"]
    assert np.linalg.norm(result.embeddings[0]) == pytest.approx(1.0, abs=1e-3)


async def test_questions_never_meet_the_vectors_of_passages():
    """Question encoding used for passages ruins retrieval without any error."""
    model, stored = ScriptedModel(), Stored()
    async with running(model, stored) as service:
        passage = (await service.embed_texts(["same words"])).embeddings[0]
        question = (await service.embed_texts(["same words"], kind="question")).embeddings[0]
    assert not np.array_equal(passage, question)
    assert [kind for kind, _ in model.batches] == ["passage", "question"]
    assert len(stored.asked) == 1


def test_the_key_is_stable_and_tells_model_kind_prefix_and_text_apart():
    """A cache keyed by Python's hash would be salted per process, and blind to the model."""
    assert embedding_key("m", "text").hex() == "f6ab8ddf107bb99d8301fd17cfc1cd53"
    keys = {
        embedding_key("m", "ab"),
        embedding_key("m", "b", prefix="a"),
        embedding_key("n", "ab"),
        embedding_key("m", "ab", "question"),
        embedding_key("ma", "b"),
        embedding_key("m", "\ud800"),
    }
    assert len(keys) == 6
    assert {len(key) for key in keys} == {16}


async def test_a_cache_key_prefix_separates_entries():
    model = ScriptedModel()
    async with running(model) as service:
        await service.embed_texts(["one"], "tenant-a")
        await service.embed_texts(["one"], "tenant-b")
        await service.embed_texts(["one"], "tenant-a")
    assert model.texts == ["one", "one"]


async def test_bad_texts_fail_alone_by_index_with_a_reason():
    async with running(ScriptedModel(bad=["cursed"])) as service:
        result = await service.embed_texts(["fine", "", " \n", "cursed", "lone \ud800 half", "good"])
    assert [vector is None for vector in result.embeddings] == [False, True, True, True, True, False]
    assert [(item.index, item.transient) for item in result.failed] == [(n, False) for n in (1, 2, 3, 4)]
    assert [item.reason for item in result.failed][:3] == ["the text is empty"] * 2 + ["cannot read 'cursed'"]
    assert "lone surrogate at position 5" in result.failed[3].reason


async def test_a_failed_text_is_not_remembered():
    model = ScriptedModel(bad=["cursed"])
    async with running(model) as service:
        await service.embed_texts(["cursed"])
        model.bad = frozenset()
        assert (await service.embed_texts(["cursed"])).failed == ()


async def test_truncated_texts_are_named_also_from_memory():
    async with running(ScriptedModel()) as service:
        texts = ["short", "word " * 600]
        assert (await service.embed_texts(texts)).truncated == (1,)
        assert (await service.embed_texts(texts)).truncated == (1,)


async def test_a_megabyte_is_cut_and_said_so_beside_an_empty_text_that_fails():
    async with running(ScriptedModel()) as service:
        result = await service.embed_texts(["word " * 200_000, ""])
    assert result.embeddings[0] is not None
    assert (result.truncated, [item.index for item in result.failed]) == ((0,), [1])


async def test_a_text_that_is_being_computed_is_not_computed_again():
    model = ScriptedModel()
    async with running(model) as service:
        model.gate.clear()
        calls = [asyncio.create_task(service.embed_texts(["same", f"own{n}"])) for n in range(5)]
        await until(lambda: model.batches)
        model.gate.set()
        results = await asyncio.gather(*calls)
    assert model.texts.count("same") == 1
    assert sum(result.cache_stats["cache_misses"] for result in results) == 6


async def test_when_the_computing_call_is_cancelled_those_who_wait_for_it_take_over():
    model = ScriptedModel()
    async with running(model) as service:
        model.gate.clear()
        blocker = asyncio.create_task(service.embed_texts(["blocks"]))
        await until(lambda: model.batches)
        owner = asyncio.create_task(service.embed_texts(["same"]))
        await settle()
        heir = asyncio.create_task(service.embed_texts(["same"]))
        await settle()
        owner.cancel()
        await settle()
        model.gate.set()
        result = await heir
        await blocker
    assert result.embeddings[0] is not None
    assert model.texts.count("same") == 1


async def test_cancelling_one_who_waits_does_not_harm_the_computing_call():
    model = ScriptedModel()
    async with running(model) as service:
        model.gate.clear()
        owner = asyncio.create_task(service.embed_texts(["same"]))
        await until(lambda: model.batches)
        waiter = asyncio.create_task(service.embed_texts(["same"]))
        await settle()
        waiter.cancel()
        await settle()
        model.gate.set()
        assert (await owner).failed == ()


async def test_before_initialize_and_after_shutdown_it_is_not_ready():
    service = LocalEmbeddings(EmbeddingsSettings(), ScriptedModel, None, FakeClock())
    with pytest.raises(NotReady):
        await service.embed_texts(["one"])
    assert (await service.check_health()).status is Health.UNHEALTHY
    await service.initialize()
    await service.shutdown()
    await service.shutdown()
    with pytest.raises(NotReady):
        await service.embed_texts(["one"])


async def test_initialize_passes_on_what_is_missing_and_may_be_called_again():
    tries = iter([ModelMissing("install it"), None])

    def factory():
        if (error := next(tries)) is not None:
            raise error
        return ScriptedModel()

    service = LocalEmbeddings(EmbeddingsSettings(), factory, None, FakeClock())
    with pytest.raises(ModelMissing, match="install it"):
        await service.initialize()
    await service.initialize()
    assert (await service.check_health()).status is Health.HEALTHY
    await service.shutdown()


@pytest.mark.parametrize(
    ("fault", "reason"), [(lambda vectors: vectors * np.nan, "not finite"), (lambda vectors: vectors[:, :7], "shape")]
)
async def test_a_model_whose_first_vector_is_unusable_does_not_start(fault, reason):
    model = ScriptedModel()
    model.rewrite = lambda texts, vectors: fault(vectors)
    service = LocalEmbeddings(EmbeddingsSettings(), lambda: model, None, FakeClock())
    with pytest.raises(CannotStart, match=rf"scripted does not work: .* {reason}"):
        await service.initialize()


async def test_the_model_is_loaded_away_from_the_event_loop():
    threads = []

    def factory():
        threads.append(threading.current_thread())
        return ScriptedModel()

    service = LocalEmbeddings(EmbeddingsSettings(), factory, None, FakeClock())
    await service.initialize()
    await service.shutdown()
    assert threads[0] is not threading.main_thread()


async def test_health_falls_with_repeated_failures_names_them_and_recovers():
    model = ScriptedModel()
    async with running(model) as service:
        model.broken = RuntimeError("out of luck")
        await service.embed_texts(["one"])
        first = await service.engine.check_health()
        second = await service.engine.check_health()
        model.broken = None
        healed = await service.engine.check_health()
    assert (first.status, second.status, healed.status) == (Health.DEGRADED, Health.UNHEALTHY, Health.HEALTHY)
    assert first.details["reason"] == "the last 2 batches failed: out of luck"
    assert (second.error_count, healed.error_count) == (3, 0)


async def test_a_hanging_model_is_unhealthy():
    clock, model = FakeClock(), ScriptedModel()
    async with running(model, clock=clock) as service:
        model.gate.clear()
        call = asyncio.create_task(service.embed_texts(["one"]))
        await until(lambda: model.batches)
        assert (await service.engine.check_health()).status is Health.HEALTHY
        await clock.advance(HUNG_AFTER_S + 1)
        health = await service.engine.check_health()
        model.gate.set()
        await call
    assert health.status is Health.UNHEALTHY
    assert health.details["reason"] == "one batch has been running for 31 s"


async def test_statistics_add_up_and_each_call_is_reported():
    seen = []
    model, stored = ScriptedModel(), Stored()
    service = LocalEmbeddings(
        EmbeddingsSettings(),
        lambda: model,
        stored,
        FakeClock(),
        lambda kind, result, s: seen.append((kind, len(result.failed))),
    )
    await service.initialize()
    stored.vectors[service.embedding_key("held")] = np.eye(1, 256, dtype=np.float32)[0]
    await service.embed_texts(["held", "new", ""])
    await service.embed_texts(["new"])
    await service.shutdown()
    stats = service.stats()
    assert seen == [("passage", 1), ("passage", 0)]
    assert (stats["texts"], stats["memory_hits"], stats["stored_hits"], stats["model_texts"]) == (4, 1, 1, 1)
    assert stats["failed_texts"] == 1
    assert stats["cache_hit_rate"] == pytest.approx(2 / 3)


async def test_the_cache_says_what_it_holds_and_saved_and_forgets_when_told():
    model, stored = ScriptedModel(), Stored()
    async with running(model, stored, cache_config=CacheSettings(max_size=10)) as service:
        stored.vectors[service.embedding_key("held")] = np.eye(1, 256, dtype=np.float32)[0]
        await service.embed_texts(["held", "new"])
        await service.embed_texts(["new"])
        report = service.cache_report()
        assert (report.entries, report.max_entries) == (2, 10)
        assert report.bytes >= 2 * 4 * 256
        assert (report.memory_hits, report.stored_hits, report.misses) == (1, 1, 1)
        assert (report.hit_rate, report.model) == (pytest.approx(2 / 3), "scripted:1")
        assert (service.clear_cache(), service.cache_report().entries) == (2, 0)
        await service.embed_texts(["new"])
    assert model.texts == ["new", "new"]


async def test_a_deleted_passage_is_forgotten_unless_the_store_still_holds_it():
    model, stored = ScriptedModel(), Stored()
    async with running(model, stored) as service:
        await service.embed_texts(["gone", "shared", "other"])
        key = service.embedding_key
        stored.vectors[key("shared")] = np.eye(1, 256, dtype=np.float32)[0]
        service.forget([key("gone"), key("shared"), key("never seen")])
        assert service.cache_report().entries == 1
        model.batches.clear()
        await service.embed_texts(["gone", "shared", "other"])
    assert model.texts == ["gone"]


async def test_tokens_are_counted_as_far_as_the_model_reads():
    async with running(ScriptedModel()) as service:
        assert await service.count_tokens(["one two", "word " * 600]) == 2 + 512
        assert await service.count_tokens([]) == 0


async def test_an_engine_tells_of_its_batches_with_its_next_answer_and_of_each_once():
    told = []
    service = LocalEmbeddings(
        EmbeddingsSettings(), ScriptedModel, None, FakeClock(), on_batch=lambda tokens, seconds: told.append(tokens)
    )
    await service.initialize()
    await service.embed_texts(["one", "two three"])
    await service.embed_texts(["one"])  # from memory
    assert len(told) == 1
    await service.embed_texts(["four"])
    assert len(told) == 2
    assert all(tokens > 0 for tokens in told)
    assert service.engine.stats()["batches"] == 2
    await service.shutdown()


async def test_tiers_and_evictions_are_counted():
    stored, model = Stored(), ScriptedModel()
    async with running(model, stored, cache_config=CacheSettings(1, 60.0)) as service:
        stored.vectors[service.embedding_key("kept")] = expected = model.embed(["kept"], "passage")[0]
        [found] = (await service.embed_texts(["kept"])).embeddings
        await service.embed_texts(["kept"])
        await service.embed_texts(["new"])
        stats = service.stats()
    assert np.allclose(found, expected)
    counted = {name: stats[name] for name in ("memory_hits", "stored_hits", "model_texts", "cached", "evictions")}
    assert counted == {"memory_hits": 1, "stored_hits": 1, "model_texts": 1, "cached": 1, "evictions": 1}
