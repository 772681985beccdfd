"""Where log events go."""

from __future__ import annotations

import json

import pytest
import structlog

from ragworks.logs import configure
from ragworks.settings import LogSettings


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_events_are_json_on_stderr_where_there_is_no_terminal(capsys):
    configure(LogSettings(level="warning"))
    log = structlog.get_logger()
    log.info("quiet")
    log.warning("loud", count=3)
    out, err = capsys.readouterr()
    event = json.loads(err)
    assert (out, event["event"], event["level"], event["count"]) == ("", "loud", "warning", 3)


def test_events_are_for_people_when_asked(capsys):
    configure(LogSettings(format="console"))
    structlog.get_logger().info("started", name="vector_store")
    assert "started" in capsys.readouterr().err
