"""From a real server's own times to a plan."""

from __future__ import annotations

import json

import pytest

from end_to_end.test_cli import Served, run

CALLS = "20"


@pytest.mark.timeout(120)
def test_a_running_server_is_measured_and_planned_from(tmp_path):
    server = Served(tmp_path)
    try:
        (tmp_path / "leave.md").write_text(
            "Annual leave is thirty days a year for everybody who works full time.\n" * 9
        )
        run(tmp_path, "ingest", "leave.md")
        run(tmp_path, "bench", "profile", "--calls", CALLS, "--kind", "ask", "--output", "p.json")
    finally:
        assert server.stop() == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert list(found["services"]) == [
        "embeddings_service", "retrieval_service", "generation_service", "orchestration_api",
    ]  # fmt: skip
    assert {one["lives"] for one in found["services"].values()} == {"server"}
    assert {len(one["service_s"]) for one in found["services"].values()} == {int(CALLS)}
    assert found["other_questions"] == 0
    assert found["services"]["orchestration_api"]["memory_bytes"] > 10**7
    out, _ = run(tmp_path, "plan", "--profile", "p.json", "--rate", "0.5", "--p95", "30", "--json")
    planned = json.loads(out)
    assert planned["met"]
    assert planned["source"]["kind"] == "ask"
    assert {one["replicas"] for one in planned["services"]} == {1}
    out, err = run(tmp_path, "plan", "--profile", "p.json", "--rate", "100000", "--p95", "1", code=1)
    assert "answered by any number of replicas" in err
    assert out.startswith("from 20 calls of ask at ")
    assert "it is one, has one core, and cannot be scaled" in out


@pytest.mark.timeout(120)
def test_where_no_server_runs_one_of_its_own_is_measured_and_nothing_is_left_of_it(tmp_path):
    out, _ = run(tmp_path, "bench", "profile", "--calls", CALLS, "--output", "p.json", "--json")
    assert json.loads(out) == json.loads((tmp_path / "p.json").read_text())
    assert [one.name for one in tmp_path.iterdir()] == ["p.json"]
    run(tmp_path, "plan", "--profile", "p.json", "--rate", "0.5", "--p95", "30")
