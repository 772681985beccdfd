"""Webhooks as an operator runs them: a served folder, a receiver on a socket, a kill between end and delivery."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from end_to_end.test_cli import Served, run

DEADLINE_S = 45.0
KEY = bytes(range(24))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
SIGNED = {"RAGWORKS_DOCUMENT_PROCESSOR__WEBHOOK_SECRET": SECRET}
DOCUMENTS = "/v1/collections/default/documents"


class Call(NamedTuple):
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """Listens on loopback. The first ``hang`` calls get no answer until the receiver stops, the others 204."""

    def __init__(self, hang: int = 0) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self._hang, self._stop = hang, threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver._hang -= 1
                receiver.calls.put(Call(dict(self.headers.items()), body))
                if receiver._hang >= 0:
                    receiver._stop.wait(DEADLINE_S)
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/ragworks"

    def call(self) -> Call:
        """The next call, which must bear our signature."""
        call = self.calls.get(timeout=DEADLINE_S)
        assert verified(call)
        return call

    def stop(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._thread.join(DEADLINE_S)
        self._server.server_close()


def verified(call: Call) -> bool:
    """As the guide for operators does it."""
    signed = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.body
    wanted = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    given = [one.removeprefix("v1,") for one in call.headers["webhook-signature"].split()]
    return any(hmac.compare_digest(wanted, one) for one in given)


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    made: list[Receiver] = []
    yield made
    for one in made:
        one.stop()


def submit(server: Served, url: str | None) -> httpx.Response:
    body = {"documents": [{"id": "a", "text": "The battery lasts two years."}], "webhook_url": url}
    return httpx.post(f"{server.url}{DOCUMENTS}", json=body, timeout=30)


def delivered(server: Served, job_id: str) -> dict[str, object]:
    """The job's webhook once its delivery is recorded."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        webhook = httpx.get(f"{server.url}/v1/jobs/{job_id}", timeout=30).json()["webhook"]
        if webhook["status"] == "delivered":
            return webhook
        assert time.monotonic() < deadline, webhook


def ready(folder: Path, *arguments: str) -> Served:
    server = Served(folder, *arguments, **SIGNED)
    server.wait_for("orchestration_api")
    return server


@pytest.mark.timeout(120)
def test_a_server_killed_between_the_end_of_a_job_and_its_delivery_delivers_after_its_restart(
    tmp_path: Path, receivers: list[Receiver]
) -> None:
    receivers.append(receiver := Receiver(hang=1))
    server = ready(tmp_path)
    try:
        job_id = submit(server, receiver.url).json()["processing_job_id"]
        first = receiver.call()  # the job has ended, and nobody has said yet that the delivery arrived
    finally:
        server.stop(signal.SIGKILL)
    server = ready(tmp_path)
    try:
        second = receiver.call()
        assert delivered(server, job_id) | {"delivered_at": 0} == {
            "url": receiver.url,
            "status": "delivered",
            "attempts": 1,
            "delivered_at": 0,
            "error": None,
        }
        metrics = httpx.get(f"{server.url}/metrics").text
    finally:
        assert server.stop() == 0
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    told = json.loads(second.body)
    assert (told["type"], told["id"], told["status"]) == ("job.completed", job_id, "completed")
    assert [one["status"] for one in told["documents"]] == ["completed"]
    assert 'rag_webhooks_total{outcome="delivered"} 1.0' in metrics


def test_without_a_secret_a_webhook_is_refused_with_what_to_set_and_nothing_is_accepted(tmp_path: Path) -> None:
    server = Served(tmp_path)
    try:
        server.wait_for("orchestration_api")
        answer = submit(server, "http://127.0.0.1:9/")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
        assert "set document_processor.webhook_secret" in answer.json()["detail"]
        assert httpx.get(f"{server.url}/v1/jobs").json()["data"] == []
    finally:
        server.stop()


def test_config_show_says_that_there_is_a_secret_and_not_which(tmp_path: Path) -> None:
    shown = {
        one["key"]: one["value"]
        for one in json.loads(run(tmp_path, "config", "show", "--json", **SIGNED)[0])["settings"]
    }
    assert shown["document_processor.webhook_secret"] == "(hidden)"


def test_a_secret_that_cannot_sign_is_refused_at_the_start_and_not_printed(tmp_path: Path) -> None:
    _, err = run(tmp_path, "serve", code=2, RAGWORKS_DOCUMENT_PROCESSOR__WEBHOOK_SECRET="hunter2")
    assert "document_processor.webhook_secret must be whsec_" in err
    assert "hunter2" not in err
