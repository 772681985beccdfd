"""An embedding endpoint that answers well, badly, late or not at all: what callers see."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

import embedding_server as servers
from embedding_server import EmbeddingServer, embedding_server
from ragworks.control.endpoints import MENDED_WITHIN_S
from ragworks.errors import CannotStart, EmbeddingFailed, EndpointUnavailable
from ragworks.models import openai_api
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.policies.retrying import RetrySettings
from ragworks.settings import EndpointSettings
from ragworks.testing import FakeClock, endpoint_set, until
from ragworks.workers.sender import QUESTION_PATIENCE_S

TEXTS = ["one", "two", "three"]
KEY = "sk-very-secret"
PREFIXES = {"question": "query: ", "passage": "passage: "}


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as one:
        yield one


@pytest.fixture
async def other() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as one:
        yield one


def embedder(
    *at: EmbeddingServer, prefixes: Any = None, clock: FakeClock | None = None, on_tokens: Any = None, **settings: Any
) -> OpenAIEmbedder:
    known = {"model": "some-model", "urls": tuple(one.url for one in at), "api_key": KEY, "dimension": 256}
    found, clock = EndpointSettings(**(known | settings)), clock or FakeClock()
    endpoints = endpoint_set(found.urls, clock, backoff=RetrySettings(base_delay_s=1.0, max_delay_s=8.0))
    more = {"on_tokens": on_tokens} if on_tokens else {}
    return OpenAIEmbedder(found, prefixes or {"question": "", "passage": ""}, endpoints, clock, **more)


@asynccontextmanager
async def opened(*at: EmbeddingServer, **settings: Any) -> AsyncIterator[OpenAIEmbedder]:
    """A model that has opened while its endpoints behaved."""
    model = embedder(*at, **settings)
    with ExitStack() as well:
        for one in at:
            well.enter_context(one.behaving())
        await model.open()
    async with asyncio.timeout(20):
        try:
            yield model
        finally:
            await model.close()


async def test_vectors_come_in_the_order_of_the_texts_whatever_order_they_were_sent_in(server):
    server.always = servers.backwards
    async with opened(server) as model:
        found = await model.embed(TEXTS, "passage")
    assert np.allclose(found, servers.vectors(TEXTS), atol=1e-6)
    assert found.dtype == np.float32


async def test_an_answer_in_numbers_is_as_good_as_one_in_base64_and_gets_unit_length(server):
    server.always = servers.embeds(lambda index, vector: [3 * value for value in vector])
    async with opened(server) as model:
        found = await model.embed(TEXTS, "passage")
    assert server.requests[0]["encoding_format"] == "base64"
    assert np.allclose(found, servers.vectors(TEXTS), atol=1e-6)


async def test_the_key_goes_into_the_header_and_the_prefix_before_each_text(server):
    async with opened(server, prefixes=PREFIXES) as model:
        await model.embed(["one"], "question")
        await model.embed(["one"], "passage")
    assert server.texts == [["query: one"], ["passage: one"]]
    assert f"authorization: Bearer {KEY}".lower() in server.headers[0].lower()
    assert server.requests[0]["model"] == "some-model"


async def test_without_a_key_none_is_sent(server):
    async with opened(server, api_key="") as model:
        await model.embed(["one"], "question")
    assert "authorization" not in server.headers[0].lower()


async def test_no_texts_are_no_request(server):
    async with opened(server) as model:
        assert (await model.embed([], "passage")).shape == (0, 256)
    assert server.requests == []


async def test_the_dimension_is_learnt_at_the_start(server):
    async with opened(server, dimension=0) as model:
        assert model.dimension == 256


async def test_a_known_dimension_lets_the_model_start_while_the_endpoint_is_down(server):
    clock = FakeClock()
    server.script = [servers.problem(503, "loading")]
    model = embedder(server, clock=clock)
    await model.open()
    assert (model.dimension, len(server.requests)) == (256, 1)
    await clock.advance(1.0)
    assert (await model.embed(TEXTS, "passage")).shape == (3, 256)
    await model.close()


async def test_a_known_dimension_that_is_not_the_models_is_refused_at_the_start(server):
    with pytest.raises(CannotStart, match=r"endpoint\.dimension must be 256, which some-model answers, found 384"):
        await embedder(server, dimension=384).open()


async def test_a_fingerprint_names_model_dimension_and_prefixes_but_neither_address_nor_key(server, other):
    one = embedder(server).fingerprint
    assert one == embedder(other, server, api_key="another").fingerprint
    others = [
        embedder(server, model="b"),
        embedder(server, dimension=3),
        embedder(server, prefixes=PREFIXES),
        embedder(server, prefixes={"question": "", "passage": "query: "}),
    ]
    assert len({one, *(model.fingerprint for model in others)}) == 5


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (servers.problem(500, "out of memory"), "answered 500: out of memory"),
        (servers.problem(401, f"bad key {KEY}"), r"answered 401: bad key \(hidden\); check .*api_key"),
        (servers.problem(404, "no such model"), "answered 404: no such model; check .*model and urls"),
        (servers.closes, "cannot be asked"),
        (servers.half_closes, "cannot be asked"),
        (lambda body: servers.response(200, b"<html>"), "what are no embeddings"),
        (lambda body: servers.response(200, {"data": None}), "what are no embeddings"),
        (servers.answers(lambda rows: [{"embedding": row["embedding"]} for row in rows]), "KeyError: 'index'"),
        (servers.answers(lambda rows: rows[1:]), "answered 2 vectors for 3 texts, with the indices 1, 2"),
        (servers.answers(lambda rows: [*rows[1:], rows[1]]), "with the indices 1, 1, 2"),
        (servers.answers(lambda rows: []), "answered 0 vectors for 3 texts"),
        (servers.embeds(lambda index, vector: vector[:8]), "vectors of 8 dimensions where 256 were expected"),
        (servers.embeds(lambda index, vector: vector[: 8 + 248 * (index != 1)]), "vectors of 8, 256 dimensions"),
        (servers.embeds(lambda index, vector: "not base64!"), "what are no embeddings"),
        (servers.embeds(lambda index, vector: [[1.0], [2.0]]), "must be a list of numbers"),
        (servers.embeds(lambda index, vector: {"a": 1}), "what are no embeddings"),
    ],
)
async def test_an_endpoint_that_gives_no_usable_answer_is_unavailable_and_the_error_says_why(server, reply, said):
    server.always = reply
    async with opened(server) as model:
        with pytest.raises(EndpointUnavailable, match=said) as caught:
            await model.embed(TEXTS, "passage")
    assert 0.5 <= caught.value.retry_after_s <= 1.0
    assert not caught.value.asked
    assert KEY not in str(caught.value)


async def test_an_endpoint_that_does_not_answer_in_time_is_unavailable(server):
    server.silent = asyncio.Event()
    async with opened(server, timeout_s=0.05) as model:
        with pytest.raises(EndpointUnavailable, match=r"did not answer within 0\.05 s"):
            await model.embed(TEXTS, "passage")
    server.silent.set()


async def test_where_nobody_listens_the_endpoint_is_unavailable():
    async with embedding_server() as gone:
        pass
    async with opened(gone) as model:
        with pytest.raises(EndpointUnavailable, match="ConnectError"):
            await model.embed(TEXTS, "passage")


@pytest.mark.parametrize(("status", "suspect"), [(500, True), (502, False), (503, False), (401, False)])
async def test_only_a_failure_inside_the_endpoint_casts_suspicion_on_the_texts(server, other, status, suspect):
    server.always = servers.problem(status)
    async with opened(server) as model:
        with pytest.raises(EndpointUnavailable) as caught:
            await model.embed(TEXTS, "passage")
    assert caught.value.suspect is suspect
    other.always = servers.closes
    async with opened(server, other) as model:
        with pytest.raises(EndpointUnavailable) as caught:
            await model.embed(TEXTS, "passage")
    assert not caught.value.suspect


async def test_an_endpoint_that_fails_inside_again_and_again_is_left_out_for_a_short_while_each_time(server):
    clock = FakeClock()
    server.always = servers.problem(500)
    async with opened(server, clock=clock) as model:
        for _ in range(6):
            with pytest.raises(EndpointUnavailable) as caught:
                await model.embed(TEXTS, "passage")
            assert 0.5 <= caught.value.retry_after_s <= 1.0
            await clock.advance(1.0)
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_an_endpoint_that_is_set_up_wrongly_is_used_again_soon_after_it_was_mended(server, status):
    """After some hours with a revoked key it was left out for 30 s, and every question failed by the old reason."""
    clock = FakeClock()
    server.always = servers.problem(status)
    async with opened(server, clock=clock) as model:
        for _ in range(6):
            with pytest.raises(EndpointUnavailable) as caught:
                await model.embed(TEXTS, "passage")
            assert 0.5 <= caught.value.retry_after_s <= MENDED_WITHIN_S < QUESTION_PATIENCE_S
            await clock.advance(MENDED_WITHIN_S)
        server.always = servers.good
        assert len(await model.embed(TEXTS, "passage")) == 3


async def test_a_large_answer_is_read_away_from_the_event_loop_vector_by_vector(server, monkeypatch):
    """100 vectors of 1,536 numbers held it for 60 ms; in a thread, but in one piece, nearly as long."""
    readers = []

    def recorded(item, really=openai_api._with_numbers):
        readers.append(threading.current_thread() is threading.main_thread())
        return really(item)

    monkeypatch.setattr(openai_api, "_with_numbers", recorded)
    server.always = servers.embeds(lambda index, vector: vector)
    async with opened(server) as model:
        readers.clear()
        texts = [f"text {number}" for number in range(100)]
        found = await model.embed(texts, "passage")
        assert np.allclose(found, servers.vectors(texts), atol=1e-6)
        assert readers == [False] * 101  # the last is the whole answer
        readers.clear()
        await model.embed(["one"], "passage")
    assert readers == [True] * 2


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_texts_that_the_endpoint_refuses_fail_for_good_and_the_endpoint_stays_in_use(server, status):
    server.script = [servers.problem(status, "too long")]
    async with opened(server) as model:
        with pytest.raises(EmbeddingFailed, match=f"answered {status}: too long"):
            await model.embed(TEXTS, "passage")
        assert len(await model.embed(TEXTS, "passage")) == 3


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 0.0, 1e300])
async def test_a_vector_that_is_no_direction_is_handed_on_as_unusable_and_never_repaired(server, value):
    server.always = servers.embeds(lambda index, vector: [value] * 256 if index == 1 else vector)
    async with opened(server) as model:
        found = await model.embed(TEXTS, "passage")
    norms = np.linalg.norm(found[[0, 2]], axis=1)
    assert np.allclose(norms, 1.0)
    assert not np.isclose(np.linalg.norm(found[1].astype(np.float64)), 1.0)


@pytest.mark.parametrize("header", ["7", "7.0", "Tue, 14 Nov 2023 22:13:27 GMT"])
async def test_nothing_is_sent_before_the_time_that_a_429_names_and_then_it_is_used_again(server, header):
    """The fake clock stands at 22:13:20 of that day."""
    clock = FakeClock()
    server.script = [servers.problem(429, "slow down", Retry_After=header)]
    async with opened(server, clock=clock) as model:
        with pytest.raises(EndpointUnavailable, match="answered 429: slow down") as caught:
            await model.embed(TEXTS, "passage")
        assert (caught.value.retry_after_s, caught.value.asked) == (pytest.approx(7.0), True)
        await clock.advance(6.9)
        with pytest.raises(EndpointUnavailable, match="slow down") as caught:
            await model.embed(TEXTS, "passage")
        assert caught.value.retry_after_s == pytest.approx(0.1)
        assert len(server.requests) == 1
        await clock.advance(0.2)
        assert len(await model.embed(TEXTS, "passage")) == 3


@pytest.mark.parametrize("header", ["", "soon", "nan", "-5"])
async def test_a_retry_after_that_says_nothing_leaves_the_usual_backoff(server, header):
    server.always = servers.problem(503, Retry_After=header)
    async with opened(server) as model:
        with pytest.raises(EndpointUnavailable) as caught:
            await model.embed(TEXTS, "passage")
    assert 0.5 <= caught.value.retry_after_s <= 1.0


async def test_another_endpoint_takes_over_at_once_and_the_failing_one_is_left_out_for_a_while(server, other):
    clock = FakeClock()
    server.always = servers.problem(500)
    async with opened(server, other, clock=clock) as model:
        for _ in range(4):
            assert len(await model.embed(TEXTS, "passage")) == 3
        assert (len(server.requests), len(other.requests)) == (1, 4)
        server.always = servers.good
        await clock.advance(1.0)
        await model.embed(TEXTS, "passage")
    assert len(server.requests) == 2


async def test_requests_go_where_nothing_is_in_flight(server, other):
    server.silent = other.silent = gate = asyncio.Event()
    async with opened(server, other) as model:
        waiting = asyncio.create_task(model.embed(["held"], "passage"))
        await until(lambda: server.requests or other.requests)
        free = other if server.requests else server
        free.silent = None
        for _ in range(3):
            await model.embed(["free"], "passage")
        gate.set()
        await waiting
    assert sorted((len(server.requests), len(other.requests))) == [1, 3]
    assert len(free.requests) == 3


async def test_a_start_without_an_answer_says_so_and_can_be_tried_again(server):
    server.script = [servers.problem(500, "loading")]
    model = embedder(server, dimension=0)
    with pytest.raises(EndpointUnavailable, match="loading"):
        await model.open()
    again = embedder(server, dimension=0)
    await again.open()
    assert again.dimension == 256
    await again.close()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (servers.problem(400, "this model does not embed"), "some-model does not work: .*this model does not embed"),
        (servers.embeds(lambda index, vector: [0.0] * 4), "zero or not finite"),
        (servers.embeds(lambda index, vector: [None] * 4), "zero or not finite"),
    ],
)
async def test_a_model_that_cannot_embed_does_not_start(server, reply, said):
    server.always = reply
    with pytest.raises(CannotStart, match=said):
        await embedder(server, dimension=0).open()


async def test_a_cancelled_request_frees_its_endpoint(server):
    server.silent = asyncio.Event()
    async with opened(server) as model:
        task = asyncio.create_task(model.embed(["held"], "passage"))
        await until(lambda: server.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.silent.set()
        server.silent = None
        assert len(await model.embed(TEXTS, "passage")) == 3


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, [7]),
        ({}, []),
        ({"usage": None}, []),
        ({"usage": {"prompt_tokens": "many"}}, []),
        ({"usage": {"prompt_tokens": -1}}, []),
    ],
)
async def test_tokens_are_counted_where_the_endpoint_says_how_many(server, usage, told):
    heard = []
    async with opened(server, on_tokens=heard.append) as model:
        heard.clear()  # the proof of opening
        server.always = servers.answers(lambda rows: rows, **usage)
        await model.embed(TEXTS, "passage")
    assert heard == told
