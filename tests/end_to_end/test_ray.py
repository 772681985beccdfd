"""Services of ours as Ray Serve deployments, unchanged, chosen among by our own balancing: real Ray, on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import ragworks
from ragworks.errors import ModelMismatch
from ragworks.models.hashing import HashingEmbedder

TESTS = Path(__file__).parents[1]
LIMIT_S = 150
"""24 s on two cores, of which Ray takes 20 to start itself and six replicas; 71 s beside eleven busy programs."""

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'ragworks[ray]'"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only root sees which ports a process listens on"),
    pytest.mark.timeout(LIMIT_S + 20),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ray_scenario.py saw: one run for all tests here."""
    folder = tmp_path_factory.mktemp("ray")
    at = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path holds 107 characters
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(ragworks.__file__).parents[1]), str(TESTS)]),
        "RAY_TMPDIR": at,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # control ports on loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),  # else Ray writes one into the home folder
    }
    # Its own session, and Ray's processes end with it, so that a run that hangs leaves nothing.
    run = subprocess.Popen(
        [sys.executable, TESTS / "ray_scenario.py", folder],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = run.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        psutil.wait_procs(
            [_killed(one) for one in [*psutil.Process(run.pid).children(recursive=True), run]], timeout=10
        )
        raise
    finally:
        shutil.rmtree(at, ignore_errors=True)
    assert run.returncode == 0, said
    found: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return found


def _killed(process: psutil.Process | subprocess.Popen[str]) -> psutil.Process:
    process.kill()
    return process if isinstance(process, psutil.Process) else psutil.Process(process.pid)


def test_verbs_of_an_unchanged_service_answer_as_they_do_here(seen: dict[str, Any]) -> None:
    verbs = seen["verbs"]
    np.testing.assert_array_equal(
        np.float32(verbs["vectors"]), HashingEmbedder().embed(["one text", "another"], "question")
    )
    assert verbs["type"] == "Computed of float32, writeable False"
    assert (verbs["card"], verbs["health"], verbs["stats"]) == ("hashing", "healthy", ["batches", "queue_size"])


def test_an_error_of_ours_comes_back_as_itself(seen: dict[str, Any]) -> None:
    """Ray makes another class of an error, and pickle calls the constructor with the message, which takes others."""
    message = str(ModelMismatch("papers", "bge-small", "hashing"))
    assert seen["verbs"]["refused"] == ["ModelMismatch", message, message]


def test_a_slow_replica_gets_the_smaller_share_by_our_router(seen: dict[str, Any]) -> None:
    """In turn it would get half. It takes 1 s, the other 0.02 s; on busy cores, say 0.3 s more each, four callers keep
    both busy in proportion to their speed, and the slow one gets 0.32 of 1.62: a fifth of the calls. A third leaves
    room: it got 2 to 4 of 60 at loads of 8 to 13."""
    shares = seen["shares"]
    assert shares["all"] == 60
    assert shares["slow"] <= 20
    assert sum(shares["in_turn"]) == 20
    assert min(shares["in_turn"]) >= 8  # of 10, the same function answering by another of its strategies


def test_a_stream_arrives_and_a_replica_that_fails_is_soon_left_out(seen: dict[str, Any]) -> None:
    """In turn every second call would fail for ever: forty good ones in a row come only when the router has heard."""
    stream = seen["stream"]
    assert stream["pieces"] == ["It is ", "so."]
    assert stream["draft"].startswith("Draft(")
    assert list(stream["errors"]) == ["RagworksError: RuntimeError: the model is broken"]
    assert stream["good_in_a_row"] == 40


def test_work_ends_there_with_the_callers_patience(seen: dict[str, Any]) -> None:
    ends = seen["ends"]
    assert ends["items"] == [0, 1]
    assert (ends["timeout"], ends["cancel"], ends["close"]) == (True, True, True)


def test_calls_that_find_every_replica_full_wait_here_and_are_not_counted_for_ever(seen: dict[str, Any]) -> None:
    """Twenty calls, of which two replicas take four each. A router that waits picks again and again, and each pick that
    comes to nothing must be given back."""
    full = seen["full"]
    assert full["there"] == 8
    assert sum(full["counted"]) >= 8
    assert full["left"] == [0, 0]


def test_a_killed_replica_costs_no_idempotent_call(seen: dict[str, Any]) -> None:
    killed = seen["killed"]
    assert killed["one_of_each"] == [2, 2]
    assert killed["lost"] == "ReplicaLost"
    assert killed["sent_again"]
    assert killed["undisturbed"] == ["b", "A", "B"]


def test_a_stopped_service_was_shut_down(seen: dict[str, Any]) -> None:
    assert seen["log"].count("initialized") >= 2
    assert seen["log"][-1] == "shut down"


def test_nothing_is_left_and_nothing_was_open_to_the_network(seen: dict[str, Any]) -> None:
    assert seen["ports"]["loopback"]
    assert seen["ports"]["elsewhere"] == []
    assert seen["processes"]["were"] >= 9  # six replicas, the controller, and Ray's own
    assert seen["processes"]["left"] == []
