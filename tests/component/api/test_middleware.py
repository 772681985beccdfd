from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import structlog

from component.api.fake_app import FakeApp
from ragworks.api import application
from ragworks.api.server import create_api
from recorded_traces import RecordedTraces

SEARCH = "/v1/collections/default/search"


def counted(app: FakeApp, line: str) -> bool:
    return line in app.metrics.render().decode().splitlines()


async def test_every_answer_carries_a_request_id_and_keeps_the_callers(client: httpx.AsyncClient) -> None:
    assert len((await client.get("/livez")).headers["x-request-id"]) == 32
    kept = await client.get("/livez", headers={"X-Request-ID": "trace-7.a"})
    assert kept.headers["x-request-id"] == "trace-7.a"
    forged = await client.get("/livez", headers={"X-Request-ID": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


async def test_requests_are_counted_by_route_template_never_by_raw_path(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    for name in ("notes.md", "dir/notes.md", "missing"):
        await client.get(f"/v1/collections/default/documents/{name}")
    route = "/v1/collections/{name}/documents/{document_id:path}"
    assert counted(app, f'rag_requests_total{{method="GET",route="{route}",status="200"}} 2.0')
    assert counted(app, f'rag_requests_total{{method="GET",route="{route}",status="404"}} 1.0')
    assert counted(app, f'rag_request_duration_seconds_count{{route="{route}"}} 3.0')
    assert b"dir/notes.md" not in app.metrics.render()


async def test_unknown_paths_and_methods_cannot_make_new_series(client: httpx.AsyncClient, app: FakeApp) -> None:
    for path in ("/a", "/b", "/c"):
        await client.request("BREW", path)
    assert counted(app, 'rag_requests_total{method="other",route="unmatched",status="404"} 3.0')


async def test_active_connections_return_to_zero_whatever_happens(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.retrieval_service.error = ZeroDivisionError("inside")
    await client.post(SEARCH, json={"query": "q"})
    await client.get("/nowhere")
    assert counted(app, "rag_active_connections 0.0")


async def test_every_route_is_shown_at_zero_before_its_first_request(client: httpx.AsyncClient, app: FakeApp) -> None:
    assert counted(app, 'rag_requests_total{method="POST",route="/v1/collections/{name}/documents",status="202"} 0.0')


async def test_each_request_is_one_log_event(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await client.get("/v1/jobs/none")
    [event] = logs
    assert (event["event"], event["route"], event["status"]) == ("request", "/v1/jobs/{job_id}", 404)
    assert event["request_id"] == answer.headers["x-request-id"]
    assert event["seconds"] >= 0


async def test_a_request_is_a_span_named_by_its_route_and_a_probe_is_none(client: httpx.AsyncClient) -> None:
    with RecordedTraces() as traces:
        for path in ("/livez", "/readyz", "/metrics", "/v1/jobs/none", "/nowhere"):
            await client.get(path)
        await client.request("BREW", "/nowhere")
    seen = [(one.name, one.attributes.get("http.response.status_code"), one.error) for one in traces.ended]
    assert seen == [("GET /v1/jobs/{job_id}", 404, ""), ("GET", 404, ""), ("HTTP", 404, "")]
    assert traces.ended[2].attributes["http.request.method"] == "_OTHER"


async def test_a_fault_fails_the_span_of_its_request(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.retrieval_service.error = ZeroDivisionError("inside")
    with RecordedTraces() as traces:
        await client.post(SEARCH, json={"query": "q"})
    assert (traces.named("POST /v1/collections/{name}/search").error, "inside" in repr(traces.ended)) == ("500", False)


async def test_a_traceparent_that_is_none_begins_a_trace(client: httpx.AsyncClient) -> None:
    with RecordedTraces() as traces:
        for header in ("nonsense", f"00-{'a' * 32}-{'b' * 16}-01"):
            await client.get("/v1/jobs/none", headers={"traceparent": header})
    first, second = traces.ended
    assert (first.parent_id, second.parent_id) == (0, int("b" * 16, 16))
    assert (first.trace_id != second.trace_id, second.trace_id) == (True, int("a" * 32, 16))


async def test_an_unexpected_error_is_logged_once_with_traceback_and_told_without(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    app.retrieval_service.error = ZeroDivisionError("inside")
    with structlog.testing.capture_logs() as logs:
        answer = await client.post(SEARCH, json={"query": "q"})
    assert [event["event"] for event in logs] == ["request_failed", "request"]
    assert logs[0]["exc_info"]
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "inside" not in answer.text
    assert counted(app, 'rag_errors_total{code="internal_error"} 1.0')


async def test_routes_refuse_with_retry_after_while_their_service_is_not_up(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    app.orchestrator.down["retrieval_service"] = "waiting for vector_store"
    answer = await client.post(SEARCH, content=b"not even read")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "not_ready", "3")
    assert "waiting for vector_store" in answer.json()["detail"]
    assert (await client.get("/v1/collections")).status_code == 200


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "JSON_BYTES", 100)


@pytest.mark.usefixtures("small_bodies")
async def test_a_body_that_says_it_is_too_long_is_refused_unread(client: httpx.AsyncClient, app: FakeApp) -> None:
    answer = await client.post(SEARCH, json={"query": "x" * 200})
    assert (answer.status_code, answer.json()["code"]) == (413, "submission_too_large")
    assert "at most 100 bytes" in answer.json()["detail"]
    assert app.retrieval_service.calls == []
    assert counted(app, 'rag_errors_total{code="submission_too_large"} 1.0')


@pytest.mark.usefixtures("small_bodies")
async def test_a_body_of_unknown_length_is_refused_at_the_byte_too_many(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b" " * 30

    answer = await client.post(SEARCH, content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "submission_too_large")
    assert asked == 4


async def test_a_form_may_be_as_long_as_the_queue_is_and_no_longer(tmp_path: object) -> None:
    app = FakeApp(str(tmp_path), document_processor={"max_queue_bytes": 1000, "max_queue_size": 1})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_api(app)), base_url="http://test") as client:
        path = "/v1/collections/default/documents"
        fits = await client.post(path, files=[("files", ("a.txt", b"x" * 1000))])
        too_long = await client.post(path, files=[("files", ("a.txt", b"x" * 2_000_000))])
    assert (fits.status_code, too_long.status_code) == (202, 413)
    assert "send fewer or smaller files" in too_long.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
async def test_a_local_server_refuses_what_web_pages_make_browsers_send(
    app: FakeApp, headers: dict[str, str], status: int
) -> None:
    api = create_api(app, local_hosts={"localhost", "127.0.0.1", "::1"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        answer = await client.get("/livez", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "forbidden"


async def test_head_is_answered_wherever_get_is(client: httpx.AsyncClient, app: FakeApp) -> None:
    """Probes that send HEAD /livez got 405 and would have taken a live server for a dead one."""
    answer = await client.head("/livez")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", "application/json")
    assert (await client.head("/v1/jobs/none")).status_code == 404
    assert (await client.head(SEARCH)).status_code == 405
    assert counted(app, 'rag_requests_total{method="HEAD",route="/livez",status="200"} 1.0')
