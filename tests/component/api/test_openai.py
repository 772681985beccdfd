from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import pytest

from component.api.fake_app import FakeApp
from ragworks.types import Turn


async def test_models_are_the_embedding_model_and_then_the_collections(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/models")).json()
    assert (answer["object"], [model["id"] for model in answer["data"]]) == ("list", ["hashing", "default"])


@pytest.mark.parametrize("name", ["hashing", "default", "team/notes"])
async def test_a_model_is_found_by_its_name(client: httpx.AsyncClient, app: FakeApp, name: str) -> None:
    app.vector_store.names.append("team/notes")
    answer = (await client.get(f"/v1/models/{name}")).json()
    assert (answer["id"], answer["object"]) == (name, "model")


async def test_a_model_that_is_not_there_is_openais_error(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models/gpt-9")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "'gpt-9'" in answer.json()["error"]["message"]


async def test_embeddings_say_how_many_tokens_were_read_and_which_texts_were_cut(client: httpx.AsyncClient) -> None:
    wanted = {"model": "hashing", "input": ["one two", "x " * 100], "dimensions": 2}
    answer = (await client.post("/v1/embeddings", json=wanted)).json()
    assert answer["usage"] == {"prompt_tokens": 102, "total_tokens": 102}
    assert answer["truncated"] == [1]
    short = (await client.post("/v1/embeddings", json={"model": "hashing", "input": []})).json()
    assert (short["data"], short["usage"]["total_tokens"], "truncated" in short) == ([], 0, False)


async def test_embeddings_come_as_numbers_or_base64(client: httpx.AsyncClient) -> None:
    wanted = {"model": "hashing", "input": ["a", "b"], "user": "somebody"}
    numbers = (await client.post("/v1/embeddings", json=wanted)).json()
    assert [row["embedding"] for row in numbers["data"]] == [[1.0, 0.0], [1.0, 0.0]]
    assert [row["index"] for row in numbers["data"]] == [0, 1]
    packed = (await client.post("/v1/embeddings", json={**wanted, "encoding_format": "base64"})).json()
    assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4").tolist() == [1.0, 0.0]


async def test_a_question_is_embedded_as_a_question_when_asked(client: httpx.AsyncClient) -> None:
    wanted = {"model": "hashing", "input": "a", "input_type": "question"}
    answer = (await client.post("/v1/embeddings", json=wanted)).json()
    assert answer["data"][0]["embedding"] == [1.0, 1.0]
    assert answer["usage"]["prompt_tokens"] == 2  # its prefix is read as well


@pytest.mark.parametrize(
    ("wanted", "status", "code", "words"),
    [
        ({"model": "other", "input": "a"}, 404, "model_not_found", "runs 'hashing'"),
        ({"model": "hashing", "input": [[1, 2]]}, 422, "invalid_input", "check_embedding_ctx_length=False"),
        (
            {"model": "hashing", "input": "a", "dimensions": 3},
            422,
            "invalid_input",
            "expected 2, which hashing answers",
        ),
        ({"model": "hashing", "input": None}, 422, "invalid_input", "input: expected text or a list, found null"),
        ({"model": "hashing", "input": [1, 2]}, 422, "invalid_input", "input[0]: expected text, found 1"),
        ({"model": "hashing", "input": ["a"] * 2049}, 422, "invalid_input", "at most 2048 texts"),
        (
            {"model": "hashing", "input": ["a", "odd"]},
            422,
            "embedding_failed",
            "input[1] could not be embedded: too odd",
        ),
    ],
)
async def test_texts_that_cannot_be_embedded_are_an_openai_error(
    client: httpx.AsyncClient, wanted: dict[str, object], status: int, code: str, words: str
) -> None:
    answer = await client.post("/v1/embeddings", json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert words in answer.json()["error"]["message"]


MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "before"},
    {"role": "assistant", "content": "well"},
    {"role": "user", "content": [{"type": "text", "text": "now"}, {"type": "image_url", "image_url": {"url": "x"}}]},
]


async def test_a_chat_asks_the_collection_that_the_model_names(client: httpx.AsyncClient, app: FakeApp) -> None:
    wanted = {"model": "default", "messages": MESSAGES, "temperature": 0.2}
    answer = (await client.post("/v1/chat/completions", json=wanted)).json()
    assert app.asked == [("default", "now", [Turn("user", "before"), Turn("assistant", "well")], None)]
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes. [1]"}
    assert answer["citations"][0]["document_id"] == "notes.md"
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_a_streamed_chat_ends_with_citations_usage_and_done(client: httpx.AsyncClient) -> None:
    wanted = {"model": "default", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    text = (await client.post("/v1/chat/completions", json=wanted)).text
    *lines, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert done == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "Yes. [1]"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["citations"][0]["marker"] == 1
    assert chunks[-1]["usage"]["total_tokens"] == 0
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_stream_that_breaks_ends_with_openais_error_object(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.pieces = ["Yes.", ZeroDivisionError("inside")]
    wanted = {"model": "default", "messages": MESSAGES, "stream": True}
    text = (await client.post("/v1/chat/completions", json=wanted)).text
    last = json.loads([line for line in text.split("\n\n") if line][-1].removeprefix("data: "))
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "internal_error")


@pytest.mark.parametrize("messages", [MESSAGES[:3], [{"role": "user", "content": "  "}], []])
async def test_a_chat_without_a_question_is_refused(client: httpx.AsyncClient, messages: list[object]) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": "default", "messages": messages})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")
