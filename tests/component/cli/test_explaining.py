"""``ragworks why``: an account that a person reads, of a server or of a folder without one."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from random import Random

import httpx
import pytest
import typer

from ragworks.cli import main
from ragworks.cli.explaining import moment, numbers
from ragworks.cli.options import Place
from ragworks.client import Client
from ragworks.clock import SystemClock
from ragworks.control.events import Journal
from ragworks.local_transport import LocalTransport
from ragworks.policies.restarting import RestartSettings, RestartState, decide, ended
from ragworks.settings import EventSettings
from ragworks.storage.events import SqliteEvents

NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def folder(tmp_path):
    """A data folder without a server, with a restart that was decided and an end that just happened."""
    data = tmp_path / ".ragworks"
    data.mkdir()
    log = SqliteEvents(data / "events.db", EventSettings(), SystemClock())
    log.open()
    async with Journal(log, SystemClock()) as journal:
        record = journal.for_service("embeddings_service")
        record("replica_ended", reason="killed by signal 9", replica="embeddings_service-0")
        settings, seed = RestartSettings(), 5
        state = ended(settings, RestartState(failures=2, last_reason="x"), 9.0, "killed by signal 9")
        inputs = {"settings": settings, "state": state, "now": 9.0}
        decision = decide(**inputs, rng=Random(seed))
        record(
            "replica_restarts",
            reason=decision.reason,
            replica="embeddings_service-0",
            policy="restarting.decide",
            inputs={**inputs, "rng": seed},
            decision=decision,
        )
    log.close()
    return data


def said(capsys):
    captured = capsys.readouterr()
    return [" ".join(line.split()) for line in captured.out.splitlines()], captured.err


def test_an_account_has_a_line_for_each_event_and_the_newest_is_last(folder, capsys):
    assert main(["why"]) == 0
    (header, first, last), _ = said(capsys)
    assert header == "time where action reason numbers"
    assert first.endswith(" embeddings_service-0 replica_ended killed by signal 9")
    assert "replica_restarts ended 3 times in a row, started again in" in last
    assert "failures=3" in last


def test_reading_the_events_of_a_folder_starts_nothing_and_takes_no_lock(folder, capsys):
    assert main(["why", "embeddings_service"]) == 0
    assert {file.name for file in folder.iterdir()} == {"events.db"}


def test_asked_again_each_decision_is_the_same(folder, capsys):
    assert main(["why", "--replay"]) == 0
    lines, err = said(capsys)
    assert [line.endswith("same") for line in lines[1:]] == [False, True]
    assert err == "asked again: 1 the same, 0 not, 1 happened without a policy\n"


def test_a_decision_that_is_another_one_now_is_told_and_fails(folder, capsys, monkeypatch):
    monkeypatch.setattr("ragworks.policies.restarting.LOOP_JITTER", 0.0)
    monkeypatch.setattr("ragworks.policies.restarting.backoff_s", lambda *_: 7.0)
    assert main(["why", "--replay", "--json"]) == 1
    happened, decided = json.loads(capsys.readouterr().out)["data"]
    assert happened["replay"]["same"] is None
    assert decided["replay"]["same"] is False
    assert "delay_s 7.0 where" in decided["replay"]["reason"]


def test_json_carries_what_decided(folder, capsys):
    assert main(["why", "--json", "--limit", "1"]) == 0
    [event] = json.loads(capsys.readouterr().out)["data"]
    assert (event["policy"], event["inputs"]["state"]["failures"], event["inputs"]["rng"]) == (
        "restarting.decide",
        3,
        5,
    )


def test_where_nothing_happened_it_says_what_would_be_there(tmp_path, capsys):
    (tmp_path / ".ragworks").mkdir()
    assert main(["why", "vector_store", "--since", "10m"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("no events of vector_store since 10m; starts, restarts, ")
    assert main(["why", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"data": []}
    assert list((tmp_path / ".ragworks").iterdir()) == []


def test_only_what_happened_since_is_told(folder, capsys):
    assert main(["why", "--since", "1h"]) == 0
    assert len(said(capsys)[0]) == 3
    assert main(["why", "--since", "0s"]) == 0
    assert "no events since 0s" in capsys.readouterr().err


def test_an_unknown_service_is_told_the_nearest_one(folder, capsys):
    assert main(["why", "embedding_service"]) == 1
    assert "did you mean embeddings_service?" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_told_so(capsys):
    assert main(["why"]) == 1
    assert "there is no data folder" in capsys.readouterr().err


def test_a_running_server_is_asked(server, capsys, monkeypatch):
    @asynccontextmanager
    async def client(self, *, create=False):
        async with httpx.AsyncClient(base_url="http://fake", transport=LocalTransport(server.application)) as http:
            yield Client(http, "http://fake")

    monkeypatch.setattr(Place, "client", client)
    event = {"id": "1", "at": NOW, "service": "document_processor", "replica": None, "action": "refused"}
    event |= {"reason": "2 of 2 \x1b[31mplaces", "count": 1234, "policy": "", "inputs": {}, "decision": {}}
    server.events = [event]
    assert main(["why", "document_processor", "--url", "http://fake", "--since", "10m"]) == 0
    [_, line], _ = said(capsys)
    assert line.endswith("document_processor refused x1,234 2 of 2 \ufffd[31mplaces")
    [asked] = server.asked
    assert (asked["service"], asked["limit"]) == ("document_processor", "50")
    assert float(asked["since"]) == pytest.approx(time.time() - 600, abs=60)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", NOW - 90),
        ("10m", NOW - 600),
        ("1.5h", NOW - 5400),
        ("3d", NOW - 3 * 86_400),
        ("999999999d", 0.0),
        ("1960-01-01", 0.0),
        ("2023-11-14T22:13:20+00:00", NOW),
        ("2023-11-14T22:13:20Z", NOW),
    ],
)
def test_since_is_a_length_or_a_time(text, at):
    assert moment(text, NOW) == pytest.approx(at)


def test_a_time_without_a_zone_is_the_local_one():
    assert moment("2026-11-24T12:00", NOW) == time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize("text", ["", "ten minutes", "10", "10w", "-5m", "2026-13-01"])
def test_what_is_no_time_is_refused_with_what_would_be(text):
    with pytest.raises(typer.BadParameter, match=r"expected a length of time \(90s, 10m, 2h, 3d\) or a time like"):
        moment(text, NOW)


def test_the_numbers_are_few_and_neither_moments_nor_settings():
    event = {
        "decision": {"delay_s": 12.3456, "state": {"failures": 3}, "reason": "x", "crash_loop": True},
        "inputs": {"now": 5.5, "rng": 7, "settings": {"budget": 5}, "up_since": 1.0, "documents": 12345, "none": 0},
    }
    assert numbers(event) == "delay_s=12.3 failures=3 documents=12345"
