"""The real App behind a real socket: documents in, jobs followed, questions answered, everything deleted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragworks.api.server import ListeningServer, serve
from ragworks.app import build
from ragworks.settings import Settings, load

DOCUMENTS = "/v1/collections/default/documents"
LEAVE = "# Leave\n\nEmployees may take thirty days of annual leave each year.\n\nThe office is closed on Sundays.\n"


def settings(data: Path, **processor: Any) -> Settings:
    return load(
        environ={},
        server={"data": str(data)},
        embeddings_service={"model_name": "hashing"},
        document_processor={"workers": 1, **processor},
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ListeningServer]:
    app = build(settings(tmp_path, max_document_bytes=100_000))
    async with app, ListeningServer(app, "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
async def http(server: ListeningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield http


async def finished(http: httpx.AsyncClient, accepted: httpx.Response) -> dict[str, Any]:
    """The job of an accepted submission, followed to its end."""
    assert accepted.status_code == 202, accepted.text
    last = {}
    async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    return last


async def ingest(http: httpx.AsyncClient, *documents: dict[str, Any]) -> dict[str, Any]:
    return await finished(http, await http.post(DOCUMENTS, json={"documents": documents}))


async def test_a_file_becomes_a_cited_answer_whose_offsets_point_into_its_text(http: httpx.AsyncClient) -> None:
    accepted = await http.post(
        DOCUMENTS, files=[("files", ("hr/leave.md", LEAVE.encode()))], data={"metadata": '{"y": 1}'}
    )
    job = await finished(http, accepted)
    assert (job["status"], job["documents"][0]["id"]) == ("completed", "hr/leave.md")
    text = (await http.get(f"{DOCUMENTS}/hr/leave.md/text")).json()["text"]
    assert text == LEAVE
    found = (await http.post("/v1/collections/default/search", json={"query": "annual leave"})).json()
    for hit in found["results"]:
        assert hit["metadata"] == {"y": 1}
        assert text[hit["start"] : hit["end"]] == hit["text"]
    answer = (
        await http.post("/v1/collections/default/ask", json={"question": "How many days of annual leave?"})
    ).json()
    citation = answer["citations"][0]
    assert "[1]" in answer["answer"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]


async def test_an_answer_streams_and_ends_with_what_the_whole_answer_says(http: httpx.AsyncClient) -> None:
    await ingest(http, {"id": "a", "text": LEAVE})
    wanted = {"question": "When is the office closed?", "stream": True}
    text = (await http.post("/v1/collections/default/ask", json=wanted)).text
    data = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(one["text"] for one in data[:-1]) == data[-1]["answer"]


async def test_a_bad_file_fails_alone_and_says_why(http: httpx.AsyncClient) -> None:
    files = [
        ("files", ("good.txt", b"The sky is blue.")),
        ("files", ("empty.txt", b"")),
        ("files", ("big.txt", b"x" * 100_001)),
    ]
    job = await finished(http, await http.post(DOCUMENTS, files=files))
    states = {one["id"]: (one["status"], (one["error"] or {}).get("code")) for one in job["documents"]}
    assert states == {
        "good.txt": ("completed", None),
        "empty.txt": ("failed", "empty_document"),
        "big.txt": ("failed", "document_too_large"),
    }
    assert (job["status"], job["file_counts"]["failed"]) == ("completed", 2)


async def test_a_repeated_submission_is_the_same_job_and_another_body_under_its_key_is_refused(
    http: httpx.AsyncClient,
) -> None:
    async def send(content: bytes) -> httpx.Response:
        return await http.post(DOCUMENTS, files=[("files", ("a.txt", content))], headers={"Idempotency-Key": "k1"})

    first, again, other = await send(b"one"), await send(b"one"), await send(b"two")
    assert first.json()["processing_job_id"] == again.json()["processing_job_id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_the_same_document_again_is_unchanged(http: httpx.AsyncClient) -> None:
    await ingest(http, {"id": "a", "text": LEAVE})
    again = await ingest(http, {"id": "a", "text": LEAVE})
    assert again["documents"][0]["unchanged"] is True
    assert (await http.get(f"{DOCUMENTS}/a")).json()["version"] == 1


async def test_a_deleted_document_is_gone_from_lists_searches_and_the_doctors_counts(http: httpx.AsyncClient) -> None:
    await ingest(http, {"id": "a", "text": LEAVE})
    assert (await http.delete(f"{DOCUMENTS}/a")).status_code == 204
    assert (await http.get(DOCUMENTS)).json() == {"data": [], "has_more": False, "last_id": None}
    assert (await http.post("/v1/collections/default/search", json={"query": "leave"})).json()["results"] == []
    doctor = (await http.get("/v1/doctor")).json()
    assert (doctor["healthy"], doctor["documents"], doctor["chunks"], doctor["words"]) == (True, 0, 0, 0)
    assert (await http.delete(f"{DOCUMENTS}/a")).json()["code"] == "document_not_found"


async def test_a_delete_takes_the_vectors_out_of_the_cache_and_the_same_text_is_embedded_anew(
    http: httpx.AsyncClient,
) -> None:
    async def cache() -> dict[str, Any]:
        return (await http.get("/v1/cache")).json()

    await ingest(http, {"id": "a", "text": LEAVE})
    first = await cache()
    assert first["entries"] > 0
    await http.delete(f"{DOCUMENTS}/a")
    assert (await cache())["entries"] == 0
    await ingest(http, {"id": "a", "text": LEAVE})
    again = await cache()
    assert (again["entries"], again["misses"]) == (first["entries"], 2 * first["misses"])


async def test_collections_keep_their_documents_to_themselves(http: httpx.AsyncClient) -> None:
    await http.post("/v1/collections", json={"name": "law"})
    await ingest(http, {"id": "a", "text": LEAVE})
    assert (await http.post("/v1/collections/law/search", json={"query": "leave"})).json()["results"] == []
    assert (await http.delete("/v1/collections/law")).status_code == 204
    answer = await http.post("/v1/collections/law/search", json={"query": "leave"})
    assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")
    answer = await http.post("/v1/collections/law/documents", json={"documents": [{"id": "a", "text": "x"}]})
    assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")


async def test_openais_routes_embed_and_answer(http: httpx.AsyncClient) -> None:
    await ingest(http, {"id": "a", "text": LEAVE})
    made = (await http.post("/v1/embeddings", json={"model": "hashing", "input": ["a", "b"]})).json()
    assert [len(row["embedding"]) for row in made["data"]] == [len(made["data"][0]["embedding"])] * 2
    wanted = {"model": "default", "messages": [{"role": "user", "content": "How many days of annual leave?"}]}
    answer = (await http.post("/v1/chat/completions", json=wanted)).json()
    assert "thirty days" in answer["choices"][0]["message"]["content"]
    assert answer["citations"][0]["document_id"] == "a"


async def test_every_service_is_listed_healthy_and_measured(http: httpx.AsyncClient) -> None:
    await ingest(http, {"id": "a", "text": LEAVE})
    services = (await http.get("/v1/services")).json()["data"]
    assert len(services) == 6
    assert {one["health"]["status"] for one in services} == {"healthy"}
    assert (await http.get("/health")).json()["status"] == "healthy"
    metrics = (await http.get("/metrics")).text
    assert 'rag_documents_total{outcome="completed"} 1.0' in metrics
    assert 'rag_service_up{service="retrieval_service"} 1.0' in metrics
    assert 'rag_stage_duration_seconds_count{stage="storing"} 1.0' in metrics


async def test_a_submission_that_could_never_fit_is_refused_with_the_limit(tmp_path: Path) -> None:
    app = build(settings(tmp_path, max_queue_size=2))
    async with app, ListeningServer(app, "127.0.0.1", 0) as server, httpx.AsyncClient(base_url=server.url) as http:
        documents = [{"id": str(index), "text": "x"} for index in range(3)]
        answer = await http.post(DOCUMENTS, json={"documents": documents})
        assert (answer.status_code, answer.json()["code"]) == (413, "submission_too_large")
        assert "2" in answer.json()["detail"]


async def test_a_served_folder_keeps_its_documents_over_a_restart(tmp_path: Path) -> None:
    async def served(visit: Any) -> None:
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(build(settings(tmp_path)), "127.0.0.1", 0, on_listening=listening.set_result)
        )
        async with httpx.AsyncClient(base_url=await listening, timeout=30) as http:
            while (await http.get("/readyz")).status_code != 200:
                assert (await http.get("/livez")).status_code == 200
            await visit(http)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving

    await served(lambda http: ingest(http, {"id": "a", "text": LEAVE}))

    async def check(http: httpx.AsyncClient) -> None:
        assert (await http.get(f"{DOCUMENTS}/a/text")).json()["text"] == LEAVE

    await served(check)
    assert not (tmp_path / "server.json").exists()
