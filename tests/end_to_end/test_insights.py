"""What a server was asked, told by it while it runs and by its folder afterwards; and what its folder does not hold."""

from __future__ import annotations

import json
import signal

import httpx

from end_to_end.test_cli import DEADLINE_S, Served, run
from end_to_end.test_restarts import ready

SECRET = "which colleague is paid below the minimum"
NOTE = "Annual leave is thirty days for everybody.\n"


def asked(server, times=1):
    """The ids of so many asks and searches."""
    found = []
    ready(server)
    with httpx.Client(base_url=f"{server.url}/v1/collections/default", timeout=DEADLINE_S) as http:
        for _ in range(times):
            for path, field in (("search", "query"), ("ask", "question")):
                answer = http.post(f"/{path}", json={field: SECRET})
                assert answer.status_code == 200
                found.append(answer.json()["id"])
    return found


def rated(server, question):
    body = {"id": question, "rating": "down", "comment": f"about {SECRET}"}
    return httpx.post(f"{server.url}/v1/collections/default/feedback", json=body, timeout=DEADLINE_S)


def filled(folder):
    (folder / "note.md").write_text(NOTE)
    (folder / "other.md").write_text("Bells are cast of brass.\n")
    run(folder, "ingest", "note.md", "other.md")


def insights(folder, *arguments):
    return json.loads(run(folder, "insights", "--json", *arguments)[0])


def texts(folder):
    """All that is on disk of events and questions."""
    return b"".join(
        file.read_bytes() for name in ("queries.db*", "events.db*") for file in (folder / ".ragworks").glob(name)
    )


def served(folder, mode):
    return Served(folder, RAGWORKS_QUERY_LOG__MODE=mode)


def test_a_killed_server_costs_no_question_that_was_told_and_its_folder_tells_them_again(tmp_path):
    server = served(tmp_path, "metadata")
    try:
        filled(tmp_path)
        ids = asked(server, 6)
        assert len(set(ids)) == 12
        assert rated(server, ids[1]).json()["comment_kept"] is False
        live = insights(tmp_path)
    finally:
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    left = insights(tmp_path)
    same = ("questions", "outcomes", "kinds", "feedback", "latency", "cache", "unanswered")
    assert {name: live[name] for name in same} == {name: left[name] for name in same}
    assert (left["questions"], left["kinds"], left["feedback"]) == (12, {"ask": 6, "search": 6}, {"down": 1})
    assert all(one["question"] is None for one in left["unanswered"])
    assert SECRET.encode() not in texts(tmp_path)
    table = run(tmp_path, "insights", "--since", "1h")[0]
    assert table.startswith("12 questions since 1h: ")
    assert "health: " in table
    assert SECRET not in table


def test_each_mode_keeps_what_it_says_and_a_narrower_one_forgets_it(tmp_path):
    server = served(tmp_path, "full")
    try:
        filled(tmp_path)
        [search, ask] = asked(server)
        assert rated(server, ask).json()["comment_kept"] is True
        assert SECRET in run(tmp_path, "insights")[0]
    finally:
        assert server.stop() == 0
    assert SECRET.encode() in texts(tmp_path)
    # A command that looks into the folder with other settings costs it nothing.
    assert insights(tmp_path)["questions"] == 2
    assert SECRET.encode() in texts(tmp_path)
    server = served(tmp_path, "metadata")
    try:
        assert insights(tmp_path)["questions"] == 2
        assert SECRET.encode() not in texts(tmp_path)
    finally:
        assert server.stop() == 0
    server = served(tmp_path, "off")
    try:
        asked(server)
        refused = rated(server, search)
        assert (refused.status_code, refused.json()["code"]) == (404, "question_not_found")
        assert "query_log.mode is off" in refused.json()["detail"]
        assert insights(tmp_path)["questions"] == 0
        assert "query_log.mode is off" in run(tmp_path, "insights")[0]
    finally:
        assert server.stop() == 0


def test_a_server_with_the_log_off_writes_none(tmp_path):
    server = served(tmp_path, "off")
    try:
        filled(tmp_path)
        asked(server)
    finally:
        assert server.stop() == 0
    assert not list((tmp_path / ".ragworks").glob("queries.db*"))
    assert SECRET.encode() not in texts(tmp_path)


def test_what_cannot_be_asked_is_refused_with_what_can(tmp_path):
    assert "there is no data folder" in run(tmp_path, "insights", code=1)[1]
    assert "expected a length of time" in run(tmp_path, "insights", "--since", "soon", code=2)[1]
