"""What was measured, as a file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.cli import main
from ragworks.errors import InvalidInput
from ragworks.simulator.profiles import Lives, Measured, Profile, Source, read, written

PROFILE = Profile(
    (
        Measured("embeddings_service", (0.01, 0.02), Lives.PROCESS, 1, 1, 0.01, 10**8),
        Measured("generation_service", (0.5, 0.6), Lives.OUTSIDE, 2, 4),
        Measured("orchestration_api", (0.002, 0.003), Lives.SERVER, 1, 1, 0.004, 2 * 10**8),
    ),
    4,
    {2: (100.0, 90.0), 8: (120.0, 130.0)},
    Source("a machine", "1.0", "2026-11-24T10:00:00+00:00", "ask", "http://127.0.0.1:1", "2", 0, 0.01),
    {0.4: (((0.1, 0.02), (0.1, 0.03)), ((0.05, 0.01),)), 0.8: (((0.1, 0.02),),)},
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "profile.json"


@given(st.floats(1e-6, 100), st.integers(2, 64), st.none() | st.floats(0, 10))
def test_a_profile_is_read_as_it_was_written(tmp_path_factory, seconds, many, cpu_s):
    file = tmp_path_factory.mktemp("p") / "profile.json"
    one = Measured("orchestration_api", (seconds,), Lives.SERVER, 1, 1, cpu_s)
    wanted = Profile((*(), one), 2, {many: (seconds,)}, PROFILE.source)
    file.write_text(json.dumps(written(wanted)))
    assert read(file) == wanted
    file.write_text(json.dumps(written(PROFILE)))
    assert read(file) == PROFILE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as a profile"),
        ("[]", "must be of format 'ragworks profile 2', found None"),
        ('{"a": {"service_s": [0.1]}}', "must be of format 'ragworks profile 2', found None"),
        ('{"format": "ragworks profile 9"}', "found 'ragworks profile 9'; make it anew with `ragworks bench profile`"),
        ('{"format": "ragworks profile 2"}', "is damaged"),
    ],
)
def test_what_is_no_profile_is_refused(file, text, said):
    file.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read(file)


@pytest.mark.parametrize(
    ("service", "change", "said"),
    [
        ("generation_service", {"service_s": []}, "as many times above 0 s"),
        ("generation_service", {"service_s": [0.1]}, "as many times above 0 s"),
        ("generation_service", {"service_s": [0.1, -1]}, "as many times above 0 s"),
        ("generation_service", {"service_s": [0.1, float("nan")]}, "as many times above 0 s"),
        ("generation_service", {"slots": 0}, "1 slot or more"),
        ("generation_service", {"replicas": 0}, "1 replica"),
        ("generation_service", {"lives": "nowhere"}, "is damaged"),
        ("orchestration_api", {"cpu_s": -1.0}, "cpu_s of orchestration_api must not be negative"),
    ],
)
def test_a_profile_that_nobody_can_have_measured_is_refused(file, service, change, said):
    found = written(PROFILE)
    found["services"][service] |= change
    file.write_text(json.dumps(found))
    with pytest.raises(InvalidInput, match=said):
        read(file)


@pytest.mark.parametrize(
    "change",
    [
        {"cores": 0},
        {"at_once": {"1": [3.0]}},
        {"at_once": {"2": []}},
        {"services": {}},
        {"at_random": {"0.4": [[[1.0, 0.1]]]}},
        {"at_random": {"0.4": [[[1.0, 0.1]]], "0.8": [[]]}},
        {"at_random": {"0.4": [[[1.0, 0.1]]], "0.8": [[[2.0, 0.1], [1.0, 0.1]]]}},
        {"at_random": {"0.4": [[[1.0, 0.1]]], "0.8": [[[1.0, 0.0]]]}},
        {"at_random": {"0.4": [[[1.0, 0.1]]], "0.8": [[[1.0]]]}},
    ],
)
def test_a_machine_that_cannot_be_is_refused(file, change):
    file.write_text(json.dumps(written(PROFILE) | change))
    with pytest.raises(InvalidInput, match="make it anew"):
        read(file)


def test_a_file_that_is_not_there_is_named(file):
    with pytest.raises(InvalidInput, match=r"profile\.json cannot be read as a profile"):
        read(file)


def test_the_command_prints_plan_and_source_and_fails_where_the_goal_is_out_of_reach(file, capsys):
    file.write_text(json.dumps(written(PROFILE)))
    assert main(["plan", "--profile", str(file), "--rate", "5", "--p95", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["met"]
    assert found["source"]["machine"] == "a machine"
    assert found["memory_bytes"] == 3 * 10**8
    assert main(["plan", "--profile", str(file), "--rate", "5", "--p95", "0.01"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("from 2 calls of ask at http://127.0.0.1:1, 2026-11-24T10:00:00+00:00")
    assert "only 2 calls were measured" in told.out
    assert "is not reached by more replicas" in told.err
    assert main(["plan", "--profile", str(file), "--rate", "5000", "--p95", "2"]) == 1
    assert "is not answered by any number of replicas" in capsys.readouterr().err
    assert main(["plan", "--profile", str(file), "--rate", "0", "--p95", "1"]) == 2
