"""Replicas for a load and a latency goal."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest

from ragworks.cli import main
from ragworks.errors import InvalidInput
from ragworks.simulator.planner import Goal, Profile, fewest, plan, read_profiles, response_s

EXPONENTIAL = tuple(np.random.default_rng(0).exponential(0.1, 5000))
ALIKE = (0.1,) * 50


@pytest.mark.parametrize("busy", [0.3, 0.5, 0.7])
def test_one_server_answers_as_theory_says(busy):
    """M/M/1: 95 % within ln 20 / (service rate - arrival rate). At 70 %, waits of 18,000 requests vary by some 8 %."""
    found = response_s(Profile("a", EXPONENTIAL), 1, Goal(busy / np.mean(EXPONENTIAL), 1.0), seed=1)
    expected = log(20) * np.mean(EXPONENTIAL) / (1 - busy)
    assert np.quantile(found, 0.95) == pytest.approx(expected, rel=0.2)


def test_work_that_is_always_alike_and_arrivals_that_never_bunch_wait_for_nobody():
    found = response_s(Profile("a", ALIKE), 1, Goal(9.0, 1.0, cv=0.01), seed=1)
    assert found == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("rate", [3.0, 30.0, 95.0])
def test_the_plan_is_the_smallest_that_meets_its_goal(rate):
    profile, goal = Profile("a", EXPONENTIAL), Goal(rate, 0.4)
    found = plan([profile], goal)
    (one,) = found.services
    assert (found.met, found.p95_s <= 0.4) == (True, True)
    if one.replicas > fewest(profile, rate):
        assert np.quantile(response_s(profile, one.replicas - 1, goal, 0), 0.95) > 0.4


def test_replicas_go_where_they_shorten_the_way():
    slow, quick = Profile("slow", tuple(10 * np.array(EXPONENTIAL)), memory_bytes=7), Profile("quick", EXPONENTIAL)
    found = plan([quick, slow], Goal(4.0, 4.5))
    replicas = {one.service: one.replicas for one in found.services}
    assert replicas["slow"] > fewest(slow, 4.0)
    assert replicas["quick"] == fewest(quick, 4.0) == 1
    assert found.memory_bytes == 7 * replicas["slow"]


def test_a_goal_below_the_work_itself_is_not_met_by_any_number():
    found = plan([Profile("a", ALIKE)], Goal(50.0, 0.05))
    assert not found.met
    assert found.p95_s == pytest.approx(0.1, rel=0.1)
    assert found.services[0].replicas < 20


def test_slots_are_replicas_that_cost_no_memory():
    wide = plan([Profile("a", EXPONENTIAL, slots=8, memory_bytes=1)], Goal(30.0, 0.4)).services[0]
    narrow = plan([Profile("a", EXPONENTIAL, memory_bytes=1)], Goal(30.0, 0.4)).services[0]
    assert (wide.replicas, wide.memory_bytes) == (1, 1)
    assert narrow.replicas == narrow.memory_bytes > 3


def test_few_measured_calls_make_the_expectation_wide():
    few, many = (plan([Profile("a", EXPONENTIAL[:count])], Goal(3.0, 1.0)) for count in (5, 5000))
    assert (few.high_s - few.low_s) / few.p95_s > 3 * (many.high_s - many.low_s) / many.p95_s


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "is no profile"),
        ("{", "is no profile"),
        ("{}", "names no service"),
        ('{"a": {}}', "is no profile"),
        ('{"a": {"service_s": []}}', "a wants times above 0 s"),
        ('{"a": {"service_s": [0.1, -1]}}', "a wants times above 0 s"),
        ('{"a": {"service_s": [0.1], "slots": 0}}', "1 slot or more"),
        ('{"a": {"service_s": ["x"]}}', "expected ..SERVICE"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, text, said):
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read_profiles(file)


def test_the_command_prints_the_plan_and_fails_where_the_goal_is_out_of_reach(tmp_path, capsys):
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"a": {"service_s": EXPONENTIAL[:200], "slots": 2, "memory_bytes": 10**8}}))
    assert main(["plan", "--profile", str(file), "--rate", "30", "--p95", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["met"]
    assert found["memory_bytes"] == 10**8 * found["services"][0]["replicas"]
    assert main(["plan", "--profile", str(file), "--rate", "30", "--p95", "0.01"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[1].startswith("a ")
    assert "is not reached by more replicas" in told.err
    assert main(["plan", "--profile", str(file), "--rate", "0", "--p95", "1"]) == 2


def test_a_load_that_would_need_thousands_of_replicas_is_refused_at_once():
    with pytest.raises(InvalidInput, match=r"need 10,527 replicas of slow; no more than 1000 are planned with"):
        plan([Profile("slow", (1.0,))], Goal(rate=10_000, p95_s=2.0))
