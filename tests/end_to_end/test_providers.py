"""Embedding models that are not in this process, behind real sockets: another server's, asked by OpenAI's own client
and by a second server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import structlog

import ragworks
from chat_server import HEAD, chat_server, chunk, reads, says
from chat_server import problem as chat_problem
from embedding_server import answers, embedding_server, problem
from folders import FILES, model_folder
from ragworks.api.server import ListeningServer
from ragworks.app import build
from ragworks.errors import ModelMismatch
from ragworks.settings import load

BUNDLED = "bge-small-en-v1.5"
LEAVE = "Employees may take thirty days of annual leave each year. The office is closed on Sundays."


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """``ragworks.open`` sets up logging unless somebody did; other tests want it untouched."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@asynccontextmanager
async def serving(data: Path, generation: Any = None, **embeddings: Any) -> AsyncIterator[ListeningServer]:
    app = build(
        load(
            environ={},
            server={"data": str(data)},
            embeddings_service={"threads": 1, **embeddings},
            generation_service=generation or {},
        )
    )
    async with app, ListeningServer(app, "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
async def bundled(tmp_path: Path) -> AsyncIterator[ListeningServer]:
    async with serving(tmp_path / "bundled") as server:
        yield server


@pytest.fixture
async def client(bundled: ListeningServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{bundled.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_openais_client_gets_the_same_vectors_as_numbers_and_by_its_default_base64(client: openai.AsyncOpenAI):
    texts = ["thirty days of leave", "the office is closed"]
    numbers = await client.embeddings.create(model=BUNDLED, input=texts, encoding_format="float", dimensions=384)
    packed = await client.embeddings.create(model=BUNDLED, input=texts)
    assert [row.index for row in numbers.data] == [0, 1]
    assert np.allclose([row.embedding for row in numbers.data], [row.embedding for row in packed.data])
    assert np.allclose(np.linalg.norm([row.embedding for row in packed.data], axis=1), 1.0, atol=1e-3)
    # [CLS] thirty days of leave [SEP], [CLS] the office is closed [SEP]
    assert (numbers.usage.prompt_tokens, numbers.usage.total_tokens, numbers.model) == (12, 12, BUNDLED)


async def test_openais_client_embeds_one_string_and_none(client: openai.AsyncOpenAI):
    assert len((await client.embeddings.create(model=BUNDLED, input="one")).data[0].embedding) == 384
    with pytest.raises(ValueError, match="No embedding data"):  # the client's own word on an empty list
        await client.embeddings.create(model=BUNDLED, input=[])


async def test_openais_client_raises_its_own_errors_with_our_words(client: openai.AsyncOpenAI):
    with pytest.raises(openai.NotFoundError, match=f"this server runs '{BUNDLED}'"):
        await client.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="expected 384") as caught:
        await client.embeddings.create(model=BUNDLED, input="a", dimensions=100)
    assert (caught.value.code, caught.value.type) == ("invalid_input", "invalid_request_error")
    with pytest.raises(openai.UnprocessableEntityError, match="token ids of another model mean nothing"):
        await client.embeddings.create(model=BUNDLED, input=[[1, 2, 3]])
    with pytest.raises(openai.UnprocessableEntityError, match="the text is empty"):
        await client.embeddings.create(model=BUNDLED, input=["a", ""])


async def test_openais_client_lists_and_finds_models(client: openai.AsyncOpenAI):
    assert [model.id async for model in client.models.list()] == [BUNDLED, "default"]
    assert (await client.models.retrieve(BUNDLED)).id == BUNDLED
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'"):
        await client.models.retrieve("gpt-9")


async def test_a_server_answers_from_documents_that_another_servers_model_embedded(bundled, tmp_path: Path):
    endpoint = {"model": BUNDLED, "urls": [f"{bundled.url}/v1"]}
    async with ragworks.open(tmp_path / "works", embeddings_service={"endpoint": endpoint}) as works:
        (job,) = [await works.add(LEAVE, id="leave")]
        assert job.status == "completed"
        found = await works.search("When is nobody at work?", mode="dense")
        assert found.hits[0].document_id == "leave"
        assert "thirty days" in (await works.ask("How many days of annual leave?")).answer


async def test_vectors_of_two_models_are_never_mixed(bundled, tmp_path: Path):
    endpoint = {"model": BUNDLED, "urls": [f"{bundled.url}/v1"]}
    async with ragworks.open(tmp_path / "works", embeddings_service={"endpoint": endpoint}) as works:
        await works.add(LEAVE, id="leave")
    folder = model_folder(tmp_path / "model", files=FILES)
    async with ragworks.open(tmp_path / "works", embeddings_service={"model_folder": folder}) as works:
        job = await works.add("Something else.", id="other")
        assert (job.status, job.error_code) == ("failed", "model_mismatch")
        with pytest.raises(ModelMismatch, match=f"holds vectors of model {BUNDLED}:384:.* runs onnx-folder:"):
            await works.search("leave", mode="dense")
        assert (await works.add("One lease.", id="new", collection="other")).status == "completed"
        assert (await works.search("lease", mode="dense", collection="other")).hits[0].document_id == "new"


async def test_while_the_endpoint_is_down_searches_go_by_words_and_the_server_says_what_is_missing(tmp_path: Path):
    async with embedding_server() as endpoint:
        settings = {"endpoint": {"model": "m", "urls": [endpoint.url], "patience_s": 5}, "model_name": "hashing"}
        async with serving(tmp_path, **settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            documents = {"documents": [{"id": "leave", "text": LEAVE}]}
            accepted = await http.post("/v1/collections/default/documents", json=documents)
            async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
                [line async for line in events.aiter_lines()]
            endpoint.always = problem(503, "loading", Retry_After="60")
            asked = await http.post("/v1/embeddings", json={"model": "m", "input": "annual"})
            assert (asked.status_code, asked.json()["error"]["code"]) == (503, "embedding_failed")
            assert 55 < int(asked.headers["retry-after"]) <= 60
            assert "answered 503: loading" in asked.json()["error"]["message"]
            found = (await http.post("/v1/collections/default/search", json={"query": "annual leave"})).json()
            assert found["results"][0]["document_id"] == "leave"
            assert "words only" in found["degraded"]
            health = (await http.get("/health")).json()
            mine = next(one for one in health["services"] if one["service_name"] == "embeddings_service")
            assert (mine["status"] == "healthy", "loading" in mine["details"]["reason"]) == (False, True)


async def test_endpoints_are_shown_as_replicas_and_why_one_is_left_alone_is_told(tmp_path: Path):
    async with embedding_server() as good, embedding_server() as bad:
        endpoint = {"model": "m", "urls": [good.url, bad.url], "api_key": "sk-very-secret"}
        async with (
            serving(tmp_path, endpoint=endpoint, model_name="hashing") as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        ):
            bad.always = problem(429, "sk-very-secret is over its quota", Retry_After="3600")
            bad.requests.clear()  # it may have been asked at the start
            for number in range(300):  # and is asked again at the latest when it was not picked for 128 times
                asked = await http.post("/v1/embeddings", json={"model": "m", "input": f"text {number:03}"})
                assert asked.status_code == 200
                if bad.requests:
                    break
            found = (await http.get("/v1/services")).json()["data"]
            mine = next(one for one in found if one["name"] == "embeddings_service")
            shown = {one["id"]: one for one in mine["replicas"]}
            assert set(shown) == {url.removeprefix("http://") for url in (good.url, bad.url)}
            well, left = (shown[url.removeprefix("http://")] for url in (good.url, bad.url))
            assert (well["status"], well["pid"], well["active_connections"], well["error_rate"]) == (
                "healthy",
                None,
                0,
                0,
            )
            assert (left["status"], left["life"], left["error_rate"] > 0.4) == ("ejected", "ejected", True)
            assert "(hidden) is over its quota" in left["note"]
            assert mine["health"]["status"] == "degraded"
            events = (await http.get("/v1/events", params={"service": "embeddings_service"})).json()["data"]
            (hold,) = [one for one in events if one["action"] == "held"]
            assert (hold["replica"], hold["policy"]) == (left["id"], "holding.hold")
            assert "over its quota; the time that it named; left alone for 3600.0 s" in hold["reason"]
            assert "sk-very-secret" not in str(found) + str(events)
            refused = await http.post("/v1/services/embeddings_service/scale", json={"instances": 3})
            assert (refused.status_code, "endpoint.urls" in refused.text) == (422, True)


DRONE = "The Kestrel weighs little. The battery of the Kestrel lasts 41 minutes."


@asynccontextmanager
async def drones(data: Path, *urls: str, **generation: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A server that knows one document and asks a chat model at ``urls``."""
    settings = {"generator": "openai", "endpoint": {"model": "chat", "urls": list(urls), "timeout_s": 20}, **generation}
    async with (
        serving(data, settings, model_name="hashing") as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        body = {"documents": [{"id": "manual", "text": DRONE}]}
        accepted = await http.post("/v1/collections/default/documents", json=body)
        async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
            [line async for line in events.aiter_lines()]
        yield http


ASK = "/v1/collections/default/ask"
BATTERY = "How long does the battery last?"


async def test_an_answer_of_a_chat_model_is_streamed_and_its_citation_resolves_in_the_document(tmp_path: Path):
    gate = asyncio.Event()
    async with chat_server() as chat, drones(tmp_path, chat.url) as http:
        chat.always = lambda body: [HEAD, chunk("It lasts "), gate, *says("41 minutes [1][4].")(body)[1:]]
        events: list[tuple[str, Any]] = []
        async with http.stream("POST", ASK, json={"question": BATTERY, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, json.loads(line.removeprefix("data: "))))
                    gate.set()  # the first words are here before the others are written
        assert [name for name, _ in events] == ["delta", "delta", "answer"]
        whole = events[-1][1]
        assert (whole["answer"], whole["abstained"], whole["model"]) == ("It lasts 41 minutes [1].", False, "chat")
        assert whole["usage"] == {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
        (cited,) = whole["citations"]
        text = (await http.get("/v1/collections/default/documents/manual/text")).json()["text"]
        assert text[cited["start"] : cited["end"]] == cited["quote"] == "The battery of the Kestrel lasts 41 minutes."
        chat.always = reads
        assert "41 minutes. [1]" in (await http.post(ASK, json={"question": BATTERY})).json()["answer"]
        assert (await http.post(ASK, json={"question": "Who paid?"})).json()["abstained"] is True


async def test_the_tokens_of_endpoints_are_counted_and_cost_what_the_settings_say(tmp_path: Path):
    async with chat_server() as chat, embedding_server() as embedder:
        embedder.always = answers(lambda rows: rows, usage={"prompt_tokens": 20, "total_tokens": 20})
        prices = {"input_price_per_million_tokens": 0.5, "output_price_per_million_tokens": 8}
        generation = {"generator": "openai", "endpoint": {"model": "chat", "urls": [chat.url], **prices}}
        embeddings = {"model": "m", "urls": [embedder.url], "input_price_per_million_tokens": 0.1}
        async with (
            serving(tmp_path, generation, model_name="hashing", endpoint=embeddings) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        ):
            body = {"documents": [{"id": "manual", "text": DRONE}]}
            accepted = await http.post("/v1/collections/default/documents", json=body)
            async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
                [line async for line in events.aiter_lines()]
            await http.post(ASK, json={"question": BATTERY})
            shown = set((await http.get("/metrics")).text.splitlines())
        asked = len(embedder.requests)
        assert asked == 3  # the proof at start, the passage, the question
        assert {
            'rag_tokens_total{kind="input",service="generation_service"} 100.0',
            'rag_tokens_total{kind="output",service="generation_service"} 7.0',
            f'rag_cost_total{{service="generation_service"}} {(100 * 0.5 + 7 * 8) / 1e6}',
            'rag_tokens_total{kind="input",service="embeddings_service"} 60.0',
            "rag_embedding_batch_tokens_sum 60.0",
            "rag_embedding_batches_total 2.0",
            "rag_generation_first_token_seconds_count 1.0",
        } <= shown
        [cost] = [line for line in shown if line.startswith('rag_cost_total{service="embeddings_service"}')]
        assert float(cost.split()[1]) == pytest.approx(60 * 0.1 / 1e6)


async def test_without_a_chat_endpoint_an_ask_says_why_and_with_a_fallback_it_quotes(tmp_path: Path):
    async with chat_server() as chat:
        chat.always = chat_problem(401, "bad key")
        async with drones(tmp_path / "none", chat.url) as http:
            for _ in range(2):
                asked = await http.post(ASK, json={"question": BATTERY})
                assert (asked.status_code, asked.json()["code"]) == (503, "endpoint_unavailable")
                assert "answered 401: bad key; check generation_service.endpoint.api_key" in asked.text
                assert int(asked.headers["retry-after"]) >= 1
            found = (await http.get("/v1/services")).json()["data"]
            mine = next(one for one in found if one["name"] == "generation_service")
            (replica,) = mine["replicas"]
            assert (replica["id"], replica["status"]) == (chat.url.removeprefix("http://"), "ejected")
            assert "bad key" in mine["health"]["details"]["reason"]
        async with drones(tmp_path / "extractive", chat.url, fallback="extractive") as http:
            chat.always = chat_problem(503, "loading")
            told = (await http.post(ASK, json={"question": BATTERY})).json()
            assert ("41 minutes. [1]" in told["answer"], told["model"]) == (True, "extractive")
