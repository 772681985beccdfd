from __future__ import annotations

import math

import httpx
import pytest

from component.api.fake_app import FakeApp
from ragworks.api.problems import describe
from ragworks.errors import DocumentTooLarge, EmbeddingFailed, IdempotencyKeyReused, QueueFull, WorkerCrashed


async def test_an_unknown_route_is_a_problem_that_says_where_routes_are_listed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/files")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no such route; GET /docs lists all routes",
        "code": "route_not_found",
        "request_id": answer.headers["x-request-id"],
    }


async def test_a_wrong_method_is_a_problem_with_the_methods_that_work(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/jobs/j1")
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", "GET")


async def test_openai_routes_answer_openais_error_object(client: httpx.AsyncClient, app: FakeApp) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": "default"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"], error["code"]) == (
        422,
        "invalid_request_error",
        "messages",
        "invalid_input",
    )
    app.orchestrator.down["embeddings_service"] = "loading"
    answer = await client.post("/v1/embeddings", json={"model": "hashing", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["type"], answer.headers["retry-after"]) == (
        503,
        "server_error",
        "3",
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DocumentTooLarge("x"), 413),
        (IdempotencyKeyReused("x"), 422),
        (EmbeddingFailed("x"), 422),
        (EmbeddingFailed("x", transient=True), 503),
        (WorkerCrashed("x"), 503),
    ],
)
def test_a_document_error_that_may_pass_is_503_and_others_are_the_callers(error: Exception, status: int) -> None:
    assert describe(error).status == status
    assert ("Retry-After" in describe(error).headers) is (status == 503)


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (1.2, "2"), (math.inf, "60"), (math.nan, "60")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: float, header: str) -> None:
    assert describe(QueueFull("full", seconds)).headers["Retry-After"] == header


async def test_a_wrong_method_names_every_method_of_the_address(client: httpx.AsyncClient) -> None:
    """PUT /v1/collections said that only POST is answered: the router tells the methods of the first route it meets,
    and the routes of one address are several."""
    answer = await client.put("/v1/collections")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert "GET, POST" in answer.json()["detail"]
    answer = await client.put("/v1/collections/default/documents/a/b")
    assert answer.headers["allow"] == "GET, DELETE"
