"""Traces as a collector gets them: across processes, through the queue, over a kill, and never at a request's cost."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from chat_server import chat_server
from embedding_server import embedding_server, problem
from end_to_end.test_cli import Served
from otlp_collector import Collector, Span, otlp_collector, path

DOCUMENTS = "/v1/collections/default/documents"
SEARCH = "/v1/collections/default/search"
ASK = "/v1/collections/default/ask"
SECRET = "quetzalcoatlus"
TEXT = f"The {SECRET} flies over the harbour. The battery of the city bike lasts 41 minutes."
STAGES = ["parsing", "cleaning", "enriching", "chunking", "embedding", "storing"]
TRACE = "1" * 32
CALLER = {"traceparent": f"00-{TRACE}-{'2' * 16}-01"}
IN_A_PROCESS = {"RAGWORKS_EMBEDDINGS_SERVICE__REPLICAS__RUNTIME": "process"}
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def served(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an embedding replica in a process, which has taken in one document."""
    named = collector.environment(
        OTEL_SERVICE_NAME="bikes",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=seven",
    )
    server = Served(tmp_path_factory.mktemp("traced"), **named, **IN_A_PROCESS)
    try:
        submit(server.url)
        yield server
    finally:
        assert server.stop() == 0, "".join(server.lines)


def submit(url: str, name: str = "bike", **headers: str) -> str:
    """The job, once it has ended."""
    body = {"documents": [{"id": name, "text": f"{TEXT} {name}"}]}
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
        wait_until_ready(http)
        accepted = http.post(DOCUMENTS, json=body, headers=headers)
        assert accepted.status_code == 202, accepted.text
        with http.stream("GET", f"{accepted.headers['location']}/events") as events:
            *_, last = [line for line in events.iter_lines() if line.startswith("data: ")]
    assert json.loads(last.removeprefix("data: "))["status"] == "completed", last
    return str(accepted.headers["location"].rpartition("/")[2])


def wait_until_ready(http: httpx.Client) -> None:
    while http.get("/readyz").status_code != 200:
        pass


def wait_for_ready(url: str) -> None:
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
        wait_until_ready(http)


def one(spans: list[Span], name: str) -> Span:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} spans {name} among {[span.name for span in spans]}"
    return found[0]


def in_trace(collector: Collector, trace: str, *last: str) -> list[Span]:
    """The spans of a trace, once its last ones are there: the others ended before them, and came no later."""
    seen = collector.wait(lambda spans: {span.name for span in spans if span.trace == trace} >= set(last))
    return [span for span in seen if span.trace == trace]


def test_a_search_is_one_trace_from_its_caller_into_the_replica_that_embeds_it(
    served: Served, collector: Collector
) -> None:
    answer = httpx.post(
        served.url + SEARCH, json={"query": f"where does the {SECRET} fly"}, headers=CALLER, timeout=TIMEOUT_S
    )
    assert answer.status_code == 200
    spans = in_trace(collector, TRACE, "POST /v1/collections/{name}/search")
    assert path(spans, one(spans, "batch")) == [
        "POST /v1/collections/{name}/search",
        "retrieval default",
        "embeddings hashing",
        "embeddings_service.embed",
        "embed",
        "batch",
    ]
    call, child = one(spans, "embeddings_service.embed"), one(spans, "embed")
    door = one(spans, "POST /v1/collections/{name}/search")
    assert (door.kind, door.parent, door.failed) == ("server", "2" * 16, False)
    assert door.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/collections/{name}/search",
        "http.response.status_code": 200,
        "url.path": SEARCH,
        "url.scheme": "http",
        "ragworks.request_id": answer.headers["x-request-id"],
    }
    assert child.attributes["process.pid"] not in (served.process.pid, None)
    assert call.start_ns <= child.start_ns <= child.end_ns <= call.end_ns
    [(_, pick)] = call.events
    assert pick["ragworks.replica_id"].startswith("embeddings_service-")
    assert path(spans, one(spans, "retrieve"))[-2:] == ["retrieval default", "retrieve"]


def test_spans_carry_what_the_environment_says_of_their_server(served: Served, collector: Collector) -> None:
    resource = collector.spans[0].resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("bikes", "test")
    assert {headers["x-tenant"] for headers in collector.headers} == {"seven"}


def test_an_ingest_is_one_trace_from_the_request_to_storing(served: Served, collector: Collector) -> None:
    trace = "3" * 32
    job = submit(served.url, "boat", traceparent=f"00-{trace}-{'4' * 16}-01")
    spans = in_trace(collector, trace, "process_document", "POST /v1/collections/{name}/documents")
    attempt = one(spans, "process_document")
    assert path(spans, attempt) == ["POST /v1/collections/{name}/documents", "submit default", "process_document"]
    assert [span.name for span in sorted(spans, key=lambda span: span.start_ns) if span.parent == attempt.id] == STAGES
    assert path(spans, one(spans, "batch"))[-5:] == [
        "embedding",
        "embeddings hashing",
        "embeddings_service.embed",
        "embed",
        "batch",
    ]
    task = httpx.get(f"{served.url}/v1/jobs/{job}").json()["documents"][0]["task_id"]
    assert attempt.kind == "consumer"
    assert attempt.attributes == {
        "ragworks.job_id": job,
        "ragworks.task_id": task,
        "ragworks.document_id": "boat",
        "ragworks.collection": "default",
        "ragworks.attempt": 1,
        "ragworks.outcome": "completed",
    }


def test_a_question_is_named_as_others_name_it(served: Served, collector: Collector) -> None:
    trace = "5" * 32
    question = {"question": "How long does the battery of the city bike last?"}
    headers = {"traceparent": f"00-{trace}-{'4' * 16}-01"}
    answer = httpx.post(served.url + ASK, json=question, headers=headers, timeout=TIMEOUT_S).json()
    assert "41 minutes" in answer["answer"]
    spans = in_trace(collector, trace, "POST /v1/collections/{name}/ask")
    wrote = one(spans, "chat extractive")
    assert path(spans, wrote) == ["POST /v1/collections/{name}/ask", "ask default", "chat extractive"]
    assert wrote.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ragworks",
        "gen_ai.request.model": "extractive",
        "gen_ai.response.model": "extractive",
        "ragworks.abstained": False,
        "ragworks.passages": one(spans, "retrieval default").attributes["ragworks.hits"],
    }


def test_what_a_caller_does_not_sample_leaves_nothing(served: Served, collector: Collector) -> None:
    for trace, flag in (("6" * 32, "00"), ("7" * 32, "01")):
        headers = {"traceparent": f"00-{trace}-{'4' * 16}-{flag}"}
        assert httpx.post(served.url + SEARCH, json={"query": "bike"}, headers=headers).status_code == 200
    in_trace(collector, "7" * 32, "POST /v1/collections/{name}/search")
    assert not [span for span in collector.spans if span.trace == "6" * 32]


def test_no_text_of_a_question_or_a_document_is_in_a_span(served: Served, collector: Collector) -> None:
    assert collector.bodies
    assert not [body for body in collector.bodies if SECRET.encode() in body]


def test_each_line_of_the_log_names_what_it_is_about(served: Served) -> None:
    answer = httpx.post(served.url + SEARCH, json={"query": "bike"}, headers=CALLER)
    line = json.loads(served.wait_for(answer.headers["x-request-id"]))
    assert (line["event"], line["trace_id"], len(line["span_id"])) == ("request", TRACE, 16)
    accepted = httpx.post(served.url + DOCUMENTS, files={"files": ("broken.pdf", b"%PDF-1.7 broken")}, headers=CALLER)
    took_in = json.loads(served.wait_for('"job_accepted"'))
    failed = json.loads(served.wait_for('"document_failed"'))
    job = accepted.json()["processing_job_id"]
    assert (took_in["request_id"], took_in["job_id"]) == (accepted.headers["x-request-id"], job)
    assert (failed["job_id"], failed["task_id"]) == (job, accepted.json()["processing_task_ids"][0])
    assert (failed["document_id"], failed["trace_id"]) == ("broken.pdf", TRACE)
    assert failed["span_id"] != took_in["span_id"]


@asynccontextmanager
async def serving(folder: Path, **environment: str) -> AsyncIterator[Served]:
    server = await asyncio.to_thread(Served, folder, **environment)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


def remote(url: str) -> dict[str, str]:
    endpoint = "RAGWORKS_EMBEDDINGS_SERVICE__ENDPOINT__"
    return {f"{endpoint}MODEL": "far", f"{endpoint}URLS": url}


async def test_after_a_kill_the_next_attempt_belongs_to_the_request_that_submitted(tmp_path: Path) -> None:
    """The one thing that only the data folder can know: which trace a document is part of."""
    with otlp_collector() as collector:
        async with embedding_server() as model:
            environment = collector.environment(**remote(model.url))
            async with serving(tmp_path, **environment) as server, httpx.AsyncClient(base_url=server.url) as http:
                await asyncio.to_thread(wait_for_ready, server.url)
                model.silent = asyncio.Event()
                body = {"documents": [{"id": "bike", "text": TEXT}]}
                accepted = await http.post(DOCUMENTS, json=body, headers=CALLER)
                await asyncio.to_thread(collector.wait, lambda spans: any(span.name == "chunking" for span in spans))
                server.process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(server.process.wait)
            model.silent = None
            async with serving(tmp_path, **environment):
                spans = await asyncio.to_thread(in_trace, collector, TRACE, "process_document")
                sent = model.headers[-1]
    attempt, submit = one(spans, "process_document"), one(spans, "submit default")
    assert attempt.parent == submit.id
    assert (attempt.attributes["ragworks.job_id"], attempt.attributes["ragworks.attempt"]) == (
        accepted.json()["processing_job_id"],
        1,
    )
    assert [span.name for span in spans if span.parent == attempt.id] == STAGES
    post = one(spans, "POST")
    assert path(spans, post)[-4:] == ["embedding", "embeddings far", "batch", "POST"]
    assert f"traceparent: 00-{TRACE}-{post.id}-01" in sent


async def test_each_attempt_at_a_document_is_a_span_with_its_number_and_its_error(tmp_path: Path) -> None:
    with otlp_collector() as collector:
        async with embedding_server() as model:
            environment = collector.environment(**remote(model.url))
            environment |= {"RAGWORKS_EMBEDDINGS_SERVICE__ENDPOINT__PATIENCE_S": "0"}
            async with serving(tmp_path, **environment) as server:
                await asyncio.to_thread(wait_for_ready, server.url)
                model.script = [problem(503)]
                await asyncio.to_thread(submit, server.url, **CALLER)
                spans = await asyncio.to_thread(
                    collector.wait, lambda spans: sum(span.name == "process_document" for span in spans) == 2
                )
    attempts = [span for span in spans if span.name == "process_document"]
    assert {span.trace for span in attempts} == {TRACE}
    seen = [(one.attributes["ragworks.attempt"], one.attributes["ragworks.outcome"], one.failed) for one in attempts]
    assert seen == [(1, "retried", True), (2, "completed", False)]
    assert attempts[0].attributes["error.type"] == "embedding_failed"
    [failed] = [span for span in spans if span.parent == attempts[0].id and span.failed]
    assert (failed.name, failed.attributes["error.type"]) == ("embedding", "embedding_failed")
    assert [one.attributes.get("http.response.status_code") for one in spans if one.name == "POST" and one.failed] == [
        503
    ]


@pytest.mark.parametrize("captured", [False, True])
async def test_texts_are_in_spans_only_if_asked_for(tmp_path: Path, captured: bool) -> None:
    more = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"} if captured else {}
    with otlp_collector() as collector:
        async with chat_server() as model:
            chat = "RAGWORKS_GENERATION_SERVICE__"
            more |= {f"{chat}GENERATOR": "openai", f"{chat}ENDPOINT__MODEL": "big", f"{chat}ENDPOINT__URLS": model.url}
            async with serving(tmp_path, **collector.environment(**more)) as server:
                await asyncio.to_thread(submit, server.url)
                async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_S) as http:
                    question = {"question": f"How long does the battery of the {SECRET} last?", "stream": True}
                    assert "41 minutes" in (await http.post(ASK, json=question, headers=CALLER)).text
                spans = await asyncio.to_thread(in_trace, collector, TRACE, "POST /v1/collections/{name}/ask")
            [sent] = model.headers
        bodies = b"".join(collector.bodies)
    wrote, post = one(spans, "chat big"), one(spans, "POST")
    assert path(spans, post) == ["POST /v1/collections/{name}/ask", "ask default", "chat big", "POST"]
    assert f"traceparent: 00-{TRACE}-{post.id}-01" in sent
    assert {key: value for key, value in wrote.attributes.items() if "messages" not in key} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.response.model": "big",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "ragworks.abstained": False,
        "ragworks.passages": 1,
    }
    assert (SECRET.encode() in bodies) == captured
    if captured:
        search = one(spans, "retrieval default").attributes
        [hit] = json.loads(search["gen_ai.retrieval.documents"])
        assert SECRET in search["gen_ai.retrieval.query.text"]
        assert (hit["id"], SECRET in hit["content"]) == ("bike", True)
        said = [json.loads(wrote.attributes[f"gen_ai.{way}.messages"])[0] for way in ("input", "output")]
        assert [(one["role"], SECRET in one["parts"][0]["content"]) for one in said] == [
            ("user", True),
            ("assistant", False),
        ]


def test_a_collector_that_is_not_there_costs_one_warning_and_no_request(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: whoever calls is refused
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": nowhere, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        server = Served(tmp_path, **environment, OTEL_EXPORTER_OTLP_TIMEOUT="1", **IN_A_PROCESS)
        try:
            submit(server.url)
            server.wait_for('"traces_not_exported"')
            for _ in range(20):
                assert httpx.post(server.url + SEARCH, json={"query": "bike"}).status_code == 200
        finally:
            assert server.stop() == 0
    assert [json.loads(line)["event"] for line in server.lines if '"warning"' in line] == ["traces_not_exported"]


def test_a_server_that_is_stopped_sends_what_waits(tmp_path: Path) -> None:
    with otlp_collector() as collector:
        server = Served(tmp_path, **collector.environment(OTEL_BSP_SCHEDULE_DELAY="3600000"))
        submit(server.url, **CALLER)
        assert not collector.spans
        assert server.stop() == 0
        assert one(collector.trace_of("process_document"), "storing").trace == TRACE
