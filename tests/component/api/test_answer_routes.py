from __future__ import annotations

import json

import httpx

from component.api.fake_app import ANSWER, FakeApp
from ragworks.errors import ModelMismatch, NotReady, UnusableFilter
from ragworks.types import Turn


def events(text: str) -> list[tuple[str, dict[str, object]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_search_hands_every_option_on_and_answers_hits_with_the_scores_of_each_leg(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    wanted = {
        "query": "q",
        "top_k": 3,
        "filter": {"type": "eq", "key": "year", "value": 2024},
        "mode": "dense",
        "rerank": True,
        "history": [{"role": "user", "content": "before"}],
        "group_by": "document",
    }
    answer = await client.post("/v1/collections/default/search", json=wanted)
    history = [Turn("user", "before")]
    assert app.retrieval_service.calls == [{**wanted, "collection": "default", "history": history}]
    assert answer.json()["results"] == [
        {
            "document_id": "notes.md",
            "chunk_id": "c1",
            "score": 0.9,
            "text": "a passage",
            "title": "Notes",
            "page": 2,
            "start": 10,
            "end": 19,
            "headings": ["Top"],
            "metadata": {"year": 2024},
            "scores": {"dense": 0.8, "lexical": None},
        }
    ]
    assert answer.json()["timings"] == {"total": 0.01}


async def test_errors_of_a_search_keep_their_code(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.retrieval_service.error = UnusableFilter("filter.type: expected eq, found like")
    assert (await client.post("/v1/collections/default/search", json={"query": "q"})).json()["code"] == "invalid_filter"
    app.retrieval_service.error = ModelMismatch("default", "a", "b")
    answer = await client.post("/v1/collections/default/search", json={"query": "q"})
    assert (answer.status_code, answer.json()["code"]) == (409, "model_mismatch")


async def test_ask_answers_with_citations(client: httpx.AsyncClient, app: FakeApp) -> None:
    wanted = {"question": "q", "history": [{"role": "assistant", "content": "a"}], "top_k": 4}
    answer = await client.post("/v1/collections/default/ask", json=wanted)
    assert answer.json()["answer"] == "Yes. [1]"
    assert answer.json()["citations"][0] == {
        "marker": 1,
        "document_id": "notes.md",
        "chunk_id": "c1",
        "title": "Notes",
        "page": None,
        "start": 0,
        "end": 4,
        "quote": "Yes.",
    }
    assert app.asked == [("default", "q", [Turn("assistant", "a")], 4)]


async def test_a_streamed_answer_is_deltas_and_then_the_whole_answer(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/collections/default/ask", json={"question": "q", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, last = events(answer.text)
    assert deltas == [("delta", {"text": "Yes."}), ("delta", {"text": " [1]"})]
    assert last == ("answer", (await client.post("/v1/collections/default/ask", json={"question": "q"})).json())


async def test_what_fails_before_the_first_piece_is_an_ordinary_error(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/collections/nowhere/ask", json={"question": "q", "stream": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")


async def test_what_fails_after_the_first_piece_ends_the_stream_with_the_problem(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    app.pieces = ["Yes.", NotReady("generation_service went away", 1.0), ANSWER]
    answer = await client.post("/v1/collections/default/ask", json={"question": "q", "stream": True})
    assert answer.status_code == 200
    name, problem = events(answer.text)[-1]
    assert (name, problem["status"], problem["code"]) == ("error", 503, "not_ready")
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_an_unexpected_failure_in_a_stream_tells_nothing_of_the_inside(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    app.pieces = ["Yes.", ZeroDivisionError("secret")]
    answer = await client.post("/v1/collections/default/ask", json={"question": "q", "stream": True})
    assert events(answer.text)[-1][1]["code"] == "internal_error"
    assert "secret" not in answer.text
