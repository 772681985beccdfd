"""Failures that are heard of after the calls were released: Ray Serve tells its routers that a call has ended, and not
how (docs/decisions/0047)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Outcome
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.types import Life


@pytest.fixture
def recorded() -> list[str]:
    return []


@pytest.fixture
def replicas(recorded: list[str]) -> ReplicaSet:
    def record(action: str, *, reason: str, replica: str | None = None, **_: Any) -> None:
        recorded.append(f"{action} {replica}: {reason}")

    made = ReplicaSet(BalanceSettings("round_robin", slow_start_s=1e-9), EjectSettings(), Random(1), record)
    for name in "ab":
        made.add(name, 0.0)
    for turn in range(40):
        pick = made.pick(1.0 + turn / 100)
        assert pick is not None
        pick.release(1.0 + turn / 100, Outcome.OK)
    return made


def test_a_replica_whose_calls_had_all_failed_is_ejected_when_that_is_heard(
    replicas: ReplicaSet, recorded: list[str]
) -> None:
    replicas.note_failures("a", 20, 2.0)
    assert {view.id: view.life for view in replicas.views(2.0)} == {"a": Life.EJECTED, "b": Life.READY}
    assert [one.split(" ", 2)[:2] for one in recorded] == [["ejected", "a:"]]
    picked = [replicas.pick(2.0) for _ in range(10)]
    assert {pick.replica_id for pick in picked if pick} == {"b"}


def test_few_failures_are_counted_and_leave_it_where_it_is(replicas: ReplicaSet, recorded: list[str]) -> None:
    replicas.note_failures("a", 5, 2.0)
    view = next(view for view in replicas.views(2.0) if view.id == "a")
    assert view.life is Life.READY
    assert 0.2 < view.error_rate < 0.3  # 5 of 20 calls, which fade a little in 0.4 s
    assert recorded == []


def test_more_failures_than_calls_are_no_error_rate_above_one(replicas: ReplicaSet) -> None:
    replicas.note_failures("a", 1.0, 2.0)
    for _ in range(3):
        replicas.note_failures("a", 4.0, 2.0)
    assert all(0.0 <= view.error_rate <= 1.0 for view in replicas.views(2.0))


def test_failures_of_a_replica_that_is_gone_or_new_are_no_trouble(replicas: ReplicaSet) -> None:
    replicas.note_failures("gone", 3.0, 2.0)
    replicas.add("new", 2.0)
    replicas.note_failures("new", 3.0, 2.0)
    assert next(view for view in replicas.views(2.0) if view.id == "new").error_rate == 0.0
