"""``ragworks bench profile``: whom it asks, what it says, and what it leaves behind."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

import ragworks.client
from ragworks.bench import profile as measuring
from ragworks.cli import main
from ragworks.errors import ServerProblem
from ragworks.simulator.profiles import Lives, Measured, Profile, Source, read

FOUND = Profile(
    (
        Measured("embeddings_service", (0.01, 0.02), Lives.PROCESS, 1, 1, 0.012, 2 * 10**8),
        Measured("orchestration_api", (0.003, 0.003), Lives.SERVER),
    ),
    2,
    {2: (100.0, 90.0, 95.0)},
    Source("a machine", "1.0", "now", "search", "http://here", "2"),
)


class Measurement:
    """Stands for the measurement itself: remembers what was asked of whom."""

    def __init__(self) -> None:
        self.urls, self.wanted, self.own, self.live = [], [], [], None
        self.problem: Exception | None = None

    async def profile(self, url, wanted, on_call):
        self.urls.append(url)
        self.wanted.append(wanted)
        on_call(5, 10)
        if self.problem:
            raise self.problem
        return FOUND

    @asynccontextmanager
    async def own_server(self, folder, arguments):
        self.own.append((folder, tuple(arguments)))
        yield "http://own"

    async def live_server(self, data):
        return self.live


@pytest.fixture
def measurement(monkeypatch, tmp_path):
    one = Measurement()
    monkeypatch.setattr(measuring, "profile", one.profile)
    monkeypatch.setattr(measuring, "own_server", one.own_server)
    monkeypatch.setattr(ragworks.client, "live_server", one.live_server)
    monkeypatch.chdir(tmp_path)
    return one


def profile(*arguments):
    return main(["bench", "profile", "--output", "p.json", *arguments])


def test_the_server_that_runs_is_measured_and_the_file_is_one_that_plan_reads(measurement, tmp_path, capsys):
    measurement.live = "http://live"
    assert profile("--calls", "50", "--kind", "ask", "--collection", "laws") == 0
    assert (measurement.urls, measurement.own) == (["http://live"], [])
    (wanted,) = measurement.wanted
    assert (wanted.kind, wanted.calls, wanted.collection, wanted.questions) == ("ask", 50, "laws", ())
    assert read(tmp_path / "p.json") == FOUND
    told = capsys.readouterr()
    assert "embeddings_service  process  1         15.0     12.0    200" in told.out
    assert "2 at once: 95.0 answers a second (90.0 to 100.0)" in told.out
    assert "questions 5/10" in told.err
    assert "next: ragworks plan --profile p.json" in told.err


def test_the_url_that_is_given_is_measured_whatever_else_runs(measurement):
    measurement.live = "http://live"
    assert profile("--url", "http://there") == 0
    assert measurement.urls == ["http://there"]


def test_where_none_runs_one_of_its_own_is_measured_with_the_same_settings_and_its_folder_is_removed(
    measurement, tmp_path, capsys
):
    (tmp_path / "mine.toml").write_text("[generation_service.endpoint]\nconcurrency = 5\n")
    assert profile("--config", "mine.toml") == 0
    ((folder, arguments),) = measurement.own
    assert arguments == ("--config", "mine.toml")
    assert not folder.exists()
    assert measurement.wanted[0].slots["generation_service"] == 5
    assert "one of its own is measured" in capsys.readouterr().err


def test_a_folder_that_is_named_and_has_no_server_is_an_error(measurement, capsys):
    assert profile("--data", "there") == 1
    assert "no server runs on there; start `ragworks serve --data there`" in capsys.readouterr().err
    assert not measurement.urls


def test_json_is_what_the_file_holds_and_nothing_else_is_printed(measurement, tmp_path, capsys):
    measurement.live = "http://live"
    assert profile("--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "p.json").read_text())
    assert told.err == ""


def test_questions_are_read_one_a_line(measurement, tmp_path):
    measurement.live = "http://live"
    (tmp_path / "q.txt").write_text("how long?\n\n  how wide? \n")
    assert profile("--questions", "q.txt") == 0
    assert measurement.wanted[0].questions == ("how long?", "how wide?")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--questions", "none.txt"], 1, "none.txt cannot be read as questions"),
        (["--questions", "empty.txt"], 1, "empty.txt holds no question; expected one a line"),
        (["--output", "no/where.json"], 1, "--output must be a file in a folder that is there"),
        (["--output", "."], 1, "--output must be a file in a folder that is there"),
        (["--calls", "3"], 2, "10"),
        (["--kind", "sing"], 2, "search"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_measured(measurement, tmp_path, capsys, arguments, code, said):
    (tmp_path / "empty.txt").write_text("\n \n")
    measurement.live = "http://live"
    assert profile(*arguments) == code
    assert said in capsys.readouterr().err
    assert not measurement.urls


def test_a_measurement_that_fails_leaves_no_file(measurement, tmp_path, capsys):
    measurement.live = "http://live"
    measurement.problem = ServerProblem("not_ready", "come again", 503)
    assert profile() == 1
    assert "not_ready: come again" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()
