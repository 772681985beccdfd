"""How errors become a line and an exit code."""

from __future__ import annotations

import asyncio

import pytest
import typer

from ragworks.cli import main
from ragworks.cli.failing import INTERRUPTED, report, run
from ragworks.errors import InvalidSettings, JobNotFound, ServerProblem


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ServerProblem("queue_full", "no room", 429), 1, "queue_full: no room"),
        (JobNotFound("7"), 1, "job_not_found: there is no job '7'; `ragworks jobs` lists them"),
        (InvalidSettings("unknown setting x"), 2, "invalid_settings: unknown setting x"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x"),
        (ExceptionGroup("tasks", [ValueError("noise"), JobNotFound("7")]), 1, "job_not_found"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; the same command with --debug"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(capsys, error, code, line):
    assert report(error) == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1


def test_the_debug_option_shows_where_an_unexpected_error_comes_from(monkeypatch, tmp_path):
    monkeypatch.setattr("ragworks.settings.describe", lambda settings: 1 / 0)
    monkeypatch.chdir(tmp_path)
    assert main(["config", "show"]) == 1
    with pytest.raises(ZeroDivisionError):
        main(["config", "show", "--debug"])


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["search"], ["search", "x", "--top-k", "0"], ["ingest", "missing"]]
)
def test_wrong_usage_is_exit_code_two(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_server_that_is_stopped_twice_ends_with_a_word_and_no_traceback(capsys):
    """The second SIGTERM cancels what still runs; the CancelledError came out of the command as a traceback."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(typer.Exit) as ended:
        run(cancelled(), interrupted="stopped")
    assert ended.value.exit_code == INTERRUPTED
    assert capsys.readouterr().err == "stopped\n"
