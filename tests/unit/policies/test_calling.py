"""Whose fault an error is, when a call is sent again, and when a second replica is asked beside a slow one."""

from __future__ import annotations

import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks import errors
from ragworks.policies.calling import Attempts, CallSettings, Fault, HedgeSettings, again, classify, hedge_after_s

SETTINGS = CallSettings()
faults = st.sampled_from(list(Fault))
times = st.floats(-1, 10) | st.just(math.inf)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidInput("no"), Fault.NONE),
        (errors.CollectionNotFound("c"), Fault.NONE),
        (errors.EmbeddingFailed("bad text", transient=True), Fault.NONE),
        (errors.QueueFull("full", 3.0), Fault.NONE),
        (errors.StorageFull("full"), Fault.NONE),
        (errors.NotReady("starting"), Fault.REFUSED),
        (errors.ReplicaLost("killed"), Fault.LOST),
        (errors.ReplicaGone("gone"), Fault.GONE),
        (errors.EndpointUnavailable("down", 1.0), Fault.FAILED),
        (errors.RagworksError("ZeroDivisionError: division by zero"), Fault.FAILED),
        (TimeoutError(), Fault.FAILED),
        (ValueError("odd"), Fault.FAILED),
        (ConnectionResetError(), Fault.FAILED),
    ],
)
def test_whose_fault_an_error_is(error: Exception, expected: Fault) -> None:
    assert classify(error) is expected


def test_every_error_of_ours_but_five_leaves_the_replica_blameless() -> None:
    """A new error is the caller's until somebody decides otherwise here: a bad text must not eject all replicas."""
    made = [
        kind.__new__(kind)
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RagworksError)
    ]
    blamed = {type(error).__name__ for error in made if classify(error) is not Fault.NONE}
    assert blamed == {"RagworksError", "NotReady", "ReplicaLost", "ReplicaGone", "EndpointUnavailable"}


@given(
    faults, st.integers(1, 5), st.integers(0, 3), st.booleans(), st.floats(-1, 10) | st.just(math.inf), st.floats(0, 20)
)
def test_what_is_sent_again_may_be_and_is_paid_for(
    fault: Fault, attempts: int, losses: int, idempotent: bool, left_s: float, saved: float
) -> None:
    decision = again(SETTINGS, fault, Attempts(idempotent, attempts, losses), left_s=left_s, saved=saved)
    assert decision.reason
    assert decision.cost <= saved
    assert decision.again or decision.cost == 0
    if decision.again:
        assert fault is not Fault.NONE
        assert idempotent or fault in (Fault.GONE, Fault.REFUSED)
        assert left_s > 0
        assert fault is Fault.GONE or attempts < SETTINGS.max_attempts
        assert decision.cost == 1 or fault is Fault.GONE or (fault is Fault.LOST and losses == 1)


def test_the_first_lost_replica_costs_no_retry_and_the_second_does() -> None:
    """A replica takes at most its calls in flight along; a call that ends each replica it meets must not go on."""

    def told(losses: int, saved: float) -> tuple[bool, float]:
        decision = again(SETTINGS, Fault.LOST, Attempts(made=losses, losses=losses), left_s=math.inf, saved=saved)
        return decision.again, decision.cost

    assert told(1, 0.0) == (True, 0.0)
    assert told(2, 0.0) == (False, 0.0)
    assert told(2, 5.0) == (True, 1.0)


@given(st.booleans(), st.lists(faults))
def test_every_replica_that_tried_counts_and_who_was_gone_does_not(idempotent: bool, ends: list[Fault]) -> None:
    attempts = Attempts(idempotent)
    for fault in ends:
        attempts = attempts.after(fault)
    tried = sum(fault is not Fault.GONE for fault in ends)
    assert attempts == Attempts(idempotent, tried, ends.count(Fault.LOST))


@given(st.lists(st.floats(0, 100), max_size=300), st.floats(0, 1))
def test_a_call_is_slow_when_few_of_the_last_ones_took_longer(took: list[float], quantile: float) -> None:
    after_s = hedge_after_s(HedgeSettings(quantile=quantile), took)
    if len(took) < 50 or quantile == 0:
        assert after_s is None
    else:
        assert after_s in took
        assert sum(one > after_s for one in took) <= (1 - quantile) * len(took) + 1


def test_hedging_is_off_by_default() -> None:
    assert hedge_after_s(SETTINGS.hedge, [0.1] * 200) is None
