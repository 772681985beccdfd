from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from component.api.fake_app import FakeApp
from ragworks.errors import QueueFull, StorageFull

DOCUMENTS = "/v1/collections/default/documents"


async def test_a_collection_is_created_listed_read_and_deleted(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/collections", json={"name": "law"})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/collections/law"
    assert (await client.get("/v1/collections/law")).json()["name"] == "law"
    assert (await client.delete("/v1/collections/law")).status_code == 204
    gone = await client.get("/v1/collections/law")
    assert (gone.status_code, gone.json()["code"]) == (404, "collection_not_found")


async def test_a_second_collection_of_the_same_name_is_a_conflict(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/collections", json={"name": "default"})
    assert (answer.status_code, answer.json()["code"], answer.json()["name"]) == (409, "collection_exists", "default")


async def test_lists_are_walked_by_the_last_id_of_the_answer_before(client: httpx.AsyncClient) -> None:
    first = (await client.get(DOCUMENTS, params={"limit": 1})).json()
    assert (first["has_more"], first["last_id"]) == (True, "dir/notes.md")
    second = (await client.get(DOCUMENTS, params={"limit": 1, "after": first["last_id"]})).json()
    assert [one["id"] for one in second["data"]] == ["notes.md"]
    assert second["has_more"] is False
    assert second["data"][0]["status"] == "completed"


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
async def test_a_limit_that_no_list_can_have_is_refused_by_name(client: httpx.AsyncClient, limit: str) -> None:
    answer = await client.get(DOCUMENTS, params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("limit: expected")
    assert limit in answer.json()["errors"][0]["found"]


async def test_document_ids_may_hold_slashes(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{DOCUMENTS}/dir/notes.md")).json()["id"] == "dir/notes.md"
    assert (await client.get(f"{DOCUMENTS}/dir%2Fnotes.md/text")).json() == {"text": "in a folder"}
    assert (await client.delete(f"{DOCUMENTS}/dir/notes.md")).status_code == 204
    assert (await client.get(f"{DOCUMENTS}/dir/notes.md")).json()["code"] == "document_not_found"


async def test_json_documents_are_accepted_with_the_address_of_their_job(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    wanted = {
        "documents": [{"id": "a", "text": "ä", "title": "A", "metadata": {"n": [1, None]}}, {"id": "b", "text": ""}]
    }
    answer = await client.post(DOCUMENTS, json=wanted)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/v1/jobs/j1"
    assert answer.json() == {
        "processing_job_id": "j1",
        "documents_queued": 2,
        "processing_task_ids": ["t0", "t1"],
        "estimated_completion_time": 1.5,
        "estimated_completion_interval": {"low": 1.0, "high": 2.5, "level": 0.8},
        "current_queue_size": 3,
    }
    call = app.document_processor.calls[0]
    assert call["wait"] is False
    first = call["uploads"][0]
    assert (first.id, first.name, first.source, first.title) == ("a", "a", "ä".encode(), "A")
    assert (first.metadata, first.media_type) == ({"n": [1, None]}, "text/plain")


@pytest.mark.parametrize(
    ("entry", "field", "expected"),
    [
        ({"text": "x"}, "documents[1].id", "a value"),
        ({"id": "", "text": "x"}, "documents[1].id", "a length of at least 1"),
        ({"id": "x" * 513, "text": "x"}, "documents[1].id", "at most 512 characters"),
        ({"id": 7, "text": "x"}, "documents[1].id", "text"),
        ({"id": "x"}, "documents[1].text", "a value"),
        ({"id": "x", "text": None}, "documents[1].text", "text"),
        ({"id": "x", "text": "x", "metadata": []}, "documents[1].metadata", "a JSON object"),
        ({"id": "x", "text": "x", "titel": "y"}, "documents[1].titel", "'title' (did you mean that?)"),
        ("x", "documents[1]", "a JSON object"),
    ],
)
async def test_one_wrong_json_document_refuses_the_submission_and_is_named(
    client: httpx.AsyncClient, app: FakeApp, entry: object, field: str, expected: str
) -> None:
    answer = await client.post(DOCUMENTS, json={"documents": [{"id": "good", "text": "x"}, entry]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert (answer.json()["errors"][0]["field"], answer.json()["errors"][0]["expected"]) == (field, expected)
    assert app.document_processor.calls == []


async def test_a_lone_surrogate_is_refused_where_it_stands(client: httpx.AsyncClient) -> None:
    body = rb'{"documents": [{"id": "a", "text": "fine \ud83d\ude00 then \ud800"}]}'
    answer = await client.post(DOCUMENTS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        "documents[0].text: expected Unicode text, found the lone surrogate \\ud800"
    )


async def test_files_are_spooled_and_keep_their_relative_names(
    client: httpx.AsyncClient, app: FakeApp, tmp_path: Path
) -> None:
    big = bytes(range(256)) * 8192
    files = [
        ("files", ("../dir\\a.txt", b"small", "text/plain")),
        ("files", ("big.bin", big, "application/pdf")),
        ("files", ("ü empty.md", b"", "text/markdown")),
    ]
    answer = await client.post(DOCUMENTS, files=files, data={"metadata": '{"year": 2024}'})
    assert answer.status_code == 202
    call = app.document_processor.calls[0]
    assert [one.id for one in call["uploads"]] == ["dir/a.txt", "big.bin", "ü empty.md"]
    assert call["contents"] == [b"small", big, b""]
    # Plain files right in this folder: opening the data folder removes what a killed server left there.
    assert Path(call["uploads"][1].source).parent == tmp_path / "tmp"
    assert {json.dumps(one.metadata) for one in call["uploads"]} == {'{"year": 2024}'}
    assert {one.media_type for one in call["uploads"]} == {None}
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ([("file", ("a.txt", b"x"))], {}, "unknown form field 'file'"),
        ([("files", ("a.txt", b"x"))], {"metadata": "[1]"}, "'metadata' must be a JSON object"),
        ([("files", ("a.txt", b"x"))], {"metadata": "{"}, "'metadata' must be a JSON object"),
        ([("files", ("..", b"x"))], {}, "a document needs a name"),
        ([("metadata", (None, b"{}"))], {}, "at least one file"),
        ([("files", (None, b"x"))], {}, "has no file name"),
        (
            [("files", ("a.txt", b"x"))],
            {"priority": "urgent"},
            "priority: expected one of low, normal, high, found 'urgent'",
        ),
        ([("files", ("a.txt", b"x"))], {"priority": ["low", "high"]}, "'priority' once, as text"),
        ([("files", ("a.txt", b"x"))], {"origin": "x" * 4097}, "origin: expected 1 to 4096 characters, found 4097"),
        ([("files", ("a.txt", b"x")), ("webhook_url", (None, b"\xff"))], {}, "'webhook_url' must be text in UTF-8"),
    ],
)
async def test_a_form_that_holds_no_usable_files_is_refused_with_advice(
    client: httpx.AsyncClient,
    app: FakeApp,
    files: list[tuple[str, tuple[str, bytes]]],
    data: dict[str, Any],
    words: str,
) -> None:
    answer = await client.post(DOCUMENTS, files=files, data=data)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert words in answer.json()["detail"]
    assert app.document_processor.calls == []


@pytest.mark.parametrize("form", ["json", "multipart"])
async def test_origin_priority_and_webhook_travel_with_the_documents(
    client: httpx.AsyncClient, app: FakeApp, form: str
) -> None:
    given = {"origin": "/srv/docs", "priority": "high", "webhook_url": "https://example.com/x"}
    if form == "json":
        answer = await client.post(DOCUMENTS, json={"documents": [{"id": "a", "text": "x"}], **given})
    else:
        answer = await client.post(DOCUMENTS, files=[("files", ("a", b"x"))], data=given)
    assert answer.status_code == 202
    call = app.document_processor.calls[0]
    assert (call["priority"], call["webhook_url"]) == ("high", "https://example.com/x")
    assert [one.origin for one in call["uploads"]] == ["/srv/docs"]


async def test_an_unknown_priority_in_json_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(DOCUMENTS, json={"documents": [{"id": "a", "text": "x"}], "priority": "urgent"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["expected"] == "one of 'low', 'normal' or 'high'"


async def test_documents_show_where_they_came_from_and_can_be_listed_by_it(client: httpx.AsyncClient) -> None:
    listed = (await client.get(DOCUMENTS, params={"origin": "/srv/dir"})).json()["data"]
    assert [(one["id"], one["origin"], one["content_hash"], one["size_bytes"]) for one in listed] == [
        ("dir/notes.md", "/srv/dir", "ab", 9)
    ]
    assert [one["origin"] for one in (await client.get(DOCUMENTS)).json()["data"]] == ["/srv/dir", None]


async def test_a_form_that_was_cut_on_the_way_is_not_half_accepted(client: httpx.AsyncClient, app: FakeApp) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf of it'
    answer = await client.post(DOCUMENTS, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "it was cut on the way" in answer.json()["detail"]
    assert app.document_processor.calls == []


async def test_more_files_than_the_queue_can_ever_hold_are_too_large(tmp_path: Path) -> None:
    app = FakeApp(tmp_path, document_processor={"max_queue_size": 2})
    answer = await submit_files(app, count=7)  # the form has room for two files and for each other field
    assert (answer.status_code, answer.json()["code"]) == (413, "submission_too_large")


async def submit_files(app: FakeApp, count: int) -> httpx.Response:
    from ragworks.api.server import create_api

    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_api(app)), base_url="http://test") as client:
        return await client.post(DOCUMENTS, files=[("files", (f"{index}.txt", b"x")) for index in range(count)])


async def test_a_body_that_is_neither_json_nor_a_form_is_415(client: httpx.AsyncClient) -> None:
    answer = await client.post(DOCUMENTS, content=b"hello", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "multipart/form-data" in answer.json()["detail"]


async def test_the_same_request_has_the_same_hash_and_another_body_another_one(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    async def send(content: bytes, metadata: str = "{}", collection: str = "default") -> str:
        await client.post(
            f"/v1/collections/{collection}/documents",
            files=[("files", ("a.txt", content))],
            data={"metadata": metadata},
            headers={"Idempotency-Key": "k"},
        )
        call = app.document_processor.calls[-1]
        assert call["idempotency_key"] == "k"
        return str(call["request_hash"])

    first = await send(b"one")
    assert await send(b"one") == first
    others = {await send(b"two"), await send(b"one", '{"a": 1}'), await send(b"one", collection="law")}
    assert len(others | {first}) == 4


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_idempotency_key_has_1_to_255_characters(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post(DOCUMENTS, json={"documents": []}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]


async def test_a_full_queue_is_429_with_whole_seconds_to_wait(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.document_processor.error = QueueFull("the queue holds 1000 of 1000 documents", 2.1)
    answer = await client.post(DOCUMENTS, json={"documents": [{"id": "a", "text": "x"}]})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["code"] == "queue_full"
    app.document_processor.error = QueueFull("full", 0.0)
    answer = await client.post(DOCUMENTS, json={"documents": [{"id": "a", "text": "x"}]})
    assert answer.headers["retry-after"] == "1"


async def test_a_full_disk_is_507(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.document_processor.error = StorageFull("no space left")
    answer = await client.post(DOCUMENTS, json={"documents": [{"id": "a", "text": "x"}]})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
