"""Feedback by the id of an answer, and what the questions come to over HTTP."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from component.api.fake_app import FakeApp
from contract.test_query_logs import a_question
from ragworks.errors import NotReady
from ragworks.policies.admission import QueueState, decide
from ragworks.types import CacheReport

FEEDBACK, INSIGHTS = "/v1/collections/default/feedback", "/v1/insights"


@pytest.fixture(autouse=True)
async def _one(app: FakeApp) -> None:
    await app.queries.append([replace(a_question(at=time.time() - 60), documents=("notes.md",))])


async def test_feedback_is_kept_counted_and_may_be_said_again(client: httpx.AsyncClient, app: FakeApp) -> None:
    body = {"id": "k1", "rating": "down", "comment": "too short"}
    for _ in range(2):
        answer = await client.post(FEEDBACK, json=body)
        assert (answer.status_code, answer.json()) == (200, {"id": "k1", "rating": "down", "comment_kept": True})
    found = (await client.get(INSIGHTS)).json()
    assert (found["feedback"], [one["comment"] for one in found["comments"]]) == ({"down": 1}, ["too short"])
    assert b'rag_feedback_total{rating="down"} 2.0' in app.metrics.render()


async def test_the_id_of_a_chat_completion_can_be_given_as_it_came(client: httpx.AsyncClient) -> None:
    assert (await client.post(FEEDBACK, json={"id": "chatcmpl-k1", "rating": "up"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        (FEEDBACK, {"id": "nope", "rating": "up"}, 404, "question_not_found"),
        ("/v1/collections/other/feedback", {"id": "k1", "rating": "up"}, 404, "question_not_found"),
        (FEEDBACK, {"id": "k1", "rating": "fine"}, 422, "invalid_input"),
        (FEEDBACK, {"id": "k1"}, 422, "invalid_input"),
        (FEEDBACK, {"id": "k1", "rating": "up", "comment": "x" * 4001}, 422, "invalid_input"),
        (FEEDBACK, {"id": "k1", "rating": "up", "coment": "x"}, 422, "invalid_input"),
    ],
)
async def test_feedback_that_means_nothing_is_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, told: str
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, told)


async def test_answers_carry_the_id_that_feedback_names(client: httpx.AsyncClient) -> None:
    search = await client.post("/v1/collections/default/search", json={"query": "q"})
    ask = await client.post("/v1/collections/default/ask", json={"question": "q"})
    assert search.json()["id"] == "q1"
    assert "id" in ask.json()


async def test_documents_that_no_question_found_are_named(client: httpx.AsyncClient) -> None:
    documents = (await client.get(INSIGHTS)).json()["documents"]
    assert [one["document_id"] for one in documents["most_used"]] == ["notes.md", "a"]
    assert [one["document_id"] for one in documents["never_used"]] == ["dir/notes.md"]
    assert (documents["never_used_count"], documents["failed"]) == (1, {"corrupt_document": 1})


async def test_refusals_for_a_full_queue_are_counted_and_those_that_never_fit_are_not(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    full = {"seen": QueueState(1000, 10**9, 1000, 10**9, ()), "documents": 1, "size_bytes": 1, "now": 0.0}
    never = {**full, "documents": 5000}
    record = app.journal.for_service("document_processor")
    for inputs in (never, *[full] * 12):  # what floods is counted under the first of its kind
        decision = decide(**inputs)  # type: ignore[arg-type]
        record("refused", reason=decision.reason, policy="admission.decide", inputs=inputs, decision=decision)
    app.journal._end_windows(everything=True)
    [advice] = (await client.get(INSIGHTS)).json()["recommendations"]
    assert advice["setting"].startswith("document_processor.")
    assert advice["evidence"].startswith("12 submissions")


async def test_what_only_a_running_embedder_knows_is_undecided_without_one(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    def down() -> CacheReport:
        raise NotReady("not up")

    await app.queries.append([replace(a_question(f"q{n}", at=time.time()), cached=False) for n in range(60)])
    setting = "embeddings_service.cache_config.max_size"
    fine = (await client.get(INSIGHTS)).json()["fine"]
    assert setting in [one["setting"] for one in fine]
    app.embeddings_service.cache_report = down  # type: ignore[method-assign]
    undecided = (await client.get(INSIGHTS)).json()["undecided"]
    assert setting in [one["setting"] for one in undecided]


async def test_without_questions_nothing_is_claimed(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.queries.kept.clear()
    found = (await client.get(INSIGHTS)).json()
    assert (found["questions"], found["periods"], found["cache"]["hit_rate"]) == (0, [], None)
    assert found["health"]["score"] is None
    assert all("not enough data" in one["evidence"] for one in found["undecided"])


@pytest.mark.parametrize("since", ["-1", "nan", "yesterday", "99999999999"])
async def test_a_time_that_cannot_be_is_refused(client: httpx.AsyncClient, since: str) -> None:
    answer = await client.get(INSIGHTS, params={"since": since})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_only_questions_since_then_count(client: httpx.AsyncClient) -> None:
    assert (await client.get(INSIGHTS, params={"since": time.time() - 30})).json()["questions"] == 0
