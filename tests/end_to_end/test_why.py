"""What a server decided, asked of it while it runs and of its folder after it was killed; what a watch sees of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx

from end_to_end.test_cli import DEADLINE_S, Served, environment, run

FEW = {"RAGWORKS_DOCUMENT_PROCESSOR__MAX_QUEUE_SIZE": "2"}


def refused(server, folder, times):
    (folder / "note.md").write_text("a note")
    run(folder, "ingest", "note.md")  # it waits until documents are taken in
    files = [("files", (f"{n}.md", b"text")) for n in range(3)]
    for _ in range(times):
        answer = httpx.post(f"{server.url}/v1/collections/default/documents", files=files, timeout=DEADLINE_S)
        assert answer.status_code == 413


def refusals(folder):
    events = json.loads(run(folder, "why", "document_processor", "--replay", "--json")[0])["data"]
    return [event for event in events if event["action"] == "refused"]


def test_refusals_are_told_by_the_server_and_after_its_death_by_its_folder(tmp_path):
    server = Served(tmp_path, **FEW)
    try:
        refused(server, tmp_path, 20)
        asked = refusals(tmp_path)
    finally:
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    # Five of a kind in a minute; the others are counted until it is over.
    assert [(event["count"], event["replay"]["same"]) for event in asked] == [(1, True)] * 5
    assert asked[0]["reason"] == "3 documents; the queue holds 2 at most"
    assert refusals(tmp_path) == asked
    again = Served(tmp_path, **FEW)
    try:
        refused(again, tmp_path, 1)
        ids = [int(event["id"]) for event in refusals(tmp_path)]
    finally:
        assert again.stop() == 0
    assert len(ids) == 6
    assert ids == sorted(set(ids))


def test_a_watch_sees_a_server_and_ctrl_c_ends_it_with_success(tmp_path):
    server = Served(tmp_path)
    watch = subprocess.Popen(
        [sys.executable, "-m", "ragworks", "status", "--watch", "--json"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout
        looks = [json.loads(watch.stdout.readline()) for _ in range(2)]
        os.kill(watch.pid, signal.SIGINT)
        _, err = watch.communicate(timeout=DEADLINE_S)
    finally:
        watch.kill()
        watch.wait()
        server.stop()
    assert [look["where"] for look in looks] == [server.url] * 2
    assert (watch.returncode, err) == (0, "")
