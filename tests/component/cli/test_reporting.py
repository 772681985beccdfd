"""``ragworks status``: what a person sees at a glance, once and while watching."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import httpx
import pytest

from ragworks.cli import main, reporting
from ragworks.cli.options import Place
from ragworks.client import Client
from ragworks.errors import ServerUnreachable
from ragworks.local_transport import LocalTransport

EJECTED = {
    "id": "embeddings_service-3",
    "pid": 4711,
    "life": "ejected",
    "status": "ejected",
    "version": "2",
    "active_connections": 3,
    "avg_response_time": 0.25,
    "error_rate": 0.125,
    "cpu_usage": 71.4,
    "memory_usage": 12.0,
    "note": "3 errors in a row; out for 5 s",
}
EVENT = {
    "id": "1",
    "at": 1_700_000_000.0,
    "service": "embeddings_service",
    "replica": "embeddings_service-3",
    "action": "eject",
    "reason": "3 errors in a row; out for 5 s",
    "count": 1,
    "policy": "ejecting.judge",
    "inputs": {},
    "decision": {},
}


@pytest.fixture(autouse=True)
def places(server, monkeypatch, tmp_path):
    """Commands reach the fake server; every entry is one that cannot be reached first."""
    unreachable: list[str] = []

    @asynccontextmanager
    async def client(self, *, create=False):
        if unreachable:
            raise ServerUnreachable(unreachable.pop(0))
        async with httpx.AsyncClient(base_url="http://fake", transport=LocalTransport(server.application)) as http:
            yield Client(http, "http://fake")

    monkeypatch.setattr(Place, "client", client)
    monkeypatch.chdir(tmp_path)
    return unreachable


@pytest.fixture
def rounds(monkeypatch):
    """``--watch`` waits not at all, and is interrupted as by Ctrl-C after so many looks."""
    waits: list[float] = []
    wanted = [2]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == wanted[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(reporting.asyncio, "sleep", sleep)
    return wanted


def test_status_shows_services_replicas_queue_and_events_and_succeeds_when_ready(capsys, server):
    server.replicas, server.events = [EJECTED], [EVENT]
    assert main(["status"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "http://fake: ready, 7 documents queued, the oldest for 1.5 min"
    assert "document_processor started healthy 1 of 2 250.0 ms" in lines
    assert "embeddings_service failed 0 no model" in lines
    assert "embeddings_service-3 4711 ejected 2 3 250.0 ms 12.5% 71.4% 12%" in lines
    assert "embeddings_service-3: 3 errors in a row; out for 5 s" in lines
    assert lines[-1].endswith(" embeddings_service-3 eject 3 errors in a row; out for 5 s")


def test_status_says_how_many_calls_wait_for_replicas_and_how_long_and_nothing_where_none_does(capsys, server):
    server.calls = {"queued": 12.0, "queue_age_s": 4.1}
    assert main(["status"]) == 0
    assert "no model; 12 wait, the oldest 4.1 s" in capsys.readouterr().out
    server.calls = {"queued": 0.0, "queue_age_s": 0.0}
    assert main(["status"]) == 0
    assert "the oldest 0" not in capsys.readouterr().out


def test_status_says_how_a_service_is_scaled_and_what_load_is_expected(capsys, server):
    forecast = {"in_s": 30.0, "expected": 4.25, "low": 0.9, "high": 7.7, "level": 0.9, "covered": None}
    server.scaling = {"mode": "auto", "action": "none", "reason": "4.3 calls at once need 9", "forecast": forecast}
    assert main(["status"]) == 0
    said = (
        "embeddings_service is scaled by its load: none, 4.3 calls at once need 9; 4.2 calls at once expected in 30 s"
    )
    assert f"{said}, 0.9 to 7.7\n" in capsys.readouterr().out
    forecast["covered"] = 0.94
    assert main(["status"]) == 0
    assert f"{said}, 0.9 to 7.7 (it was so in 94 %, meant: 90 %)" in capsys.readouterr().out
    server.scaling = {"mode": "pinned", "reason": None}
    assert main(["status"]) == 0
    assert "embeddings_service is scaled by hand\n" in capsys.readouterr().out


def test_events_that_cannot_be_read_do_not_hide_the_rest(capsys, server):
    server.refuse(507, "storage_full")
    assert main(["status"]) == 0
    assert "document_processor" in capsys.readouterr().out


def test_what_is_not_known_is_left_empty_and_never_zero(capsys):
    assert main(["status"]) == 0
    [replica] = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("1 ")]
    assert replica == ["1", "1", "ready"]


def test_status_fails_while_search_cannot_be_answered(capsys, server):
    server.ready = False
    assert main(["status", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ready"], found["waiting"]) == (False, {"embeddings_service": "loading"})
    assert (found["queue_size"], found["queue_oldest_s"], found["events"]) == (7, 90.0, [])


def test_watching_appends_blocks_where_there_is_no_terminal_and_ctrl_c_ends_it_well(capsys, rounds):
    assert main(["status", "--watch", "--url", "http://fake"]) == 0
    assert capsys.readouterr().out.count("http://fake: ready") == 2


def test_watching_as_json_is_a_line_for_each_look(capsys, rounds):
    assert main(["status", "--watch", "--json", "--url", "http://fake"]) == 0
    assert [json.loads(line)["ready"] for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_watching_goes_on_while_the_server_is_away_and_shows_its_return(capsys, rounds, places):
    """Who restarts a server wants to see it come back, not a watch that died with it."""
    rounds[0] = 3
    places += ["it is being restarted"]
    assert main(["status", "--watch", "--json", "--url", "http://fake"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look["ready"] for look in looks] == [False, True, True]
    assert looks[0]["problem"] == "it is being restarted"


def test_watching_a_folder_without_a_server_opens_nothing(capsys, rounds, server):
    """Opened here, the folder would be locked, and the server that one waits for could not start."""
    assert main(["status", "--watch"]) == 0
    assert "not ready: no server runs on this data folder" in capsys.readouterr().out
    assert server.asked == []


def test_on_a_terminal_watching_draws_in_place(capsys, rounds, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["status", "--watch", "--url", "http://fake"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1A" in out  # the cursor goes up again
    assert "Ctrl-C ends" in out
