"""What is learnt of calls and replicas, and what follows for the next call."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.loads import (
    KNOWN,
    MOST_PATIENCE,
    PATIENCE,
    Expectation,
    Load,
    begin,
    current_pace,
    end,
    expected_delay_s,
    learn,
)


def test_nothing_is_expected_before_a_call_has_ended() -> None:
    assert (Expectation().of(None), Expectation().of(12.0)) == (0.0, 0.0)


def test_a_line_through_cost_and_seconds_is_found() -> None:
    expectation, rng = Expectation(), Random(0)
    for _ in range(2000):
        cost = rng.uniform(100, 4000)
        expectation.observe(cost, 0.005 + 0.00004 * cost)
    assert expectation.of(3000) == pytest.approx(0.125, rel=0.01)
    assert expectation.of(200) == pytest.approx(0.013, rel=0.05)


def test_a_call_of_unknown_cost_is_expected_to_be_the_usual_one() -> None:
    expectation = Expectation()
    for cost, seconds in ((1, 1.0), (2, 2.0), (None, 3.0)):
        expectation.observe(cost, seconds)
    assert expectation.of(None) == pytest.approx(2.0)


@given(st.lists(st.tuples(st.none() | st.floats(0, 1e6), st.floats(1e-6, 1e6)), max_size=60), st.floats(0, 1e9))
def test_an_expectation_is_never_negative_nor_zero_once_something_was_seen(observed, cost) -> None:
    expectation = Expectation()
    for one in observed:
        expectation.observe(*one)
    assert expectation.of(cost) > 0 or not observed


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 1000)), max_size=30), st.randoms())
def test_what_begins_and_ends_leaves_nothing_behind(calls, rng) -> None:
    load = Load("r")
    for expected_s, at in calls:
        begin(load, expected_s, at)
    rng.shuffle(calls)
    for expected_s, at in calls:
        end(load, expected_s, at)
    assert load == Load("r")


def test_a_pace_is_learnt_from_few_answers_and_noise_moves_a_known_one_little() -> None:
    load = Load("r")
    for _ in range(3):
        learn(load, 3.0, again=False, best=1.0)
    assert load.pace > 2.4
    for _ in range(100):
        learn(load, 3.0, again=False, best=1.0)
    learn(load, 6.0, again=False, best=1.0)
    assert load.pace == pytest.approx(3.0 + 3.0 / KNOWN, rel=0.05)


def test_calls_in_flight_for_longer_than_expected_make_a_replica_slower() -> None:
    load = Load("r", slots=4, known=10)
    for _ in range(4):
        begin(load, 1.0, 0.0)
    assert current_pace(load, 0.9) == 1.0
    # Four calls of 1 s that have taken 6 s exceed what was expected by 4 x 5 = 20, which is 2 for each known answer.
    assert current_pace(load, 6.0) == pytest.approx(3.0)


def test_the_delay_grows_with_what_is_ahead_and_shrinks_as_that_is_worked_off() -> None:
    load = Load("r", slots=1, active=2, backlog=2.0)
    begin(load, 1.0, 0.0)
    idle = Load("idle", slots=1)
    delays = [expected_delay_s(load, now, 1.0) for now in (0.0, 0.5, 1.0)]
    assert delays == sorted(delays, reverse=True)
    assert delays[-1] > expected_delay_s(idle, 1.0, 1.0) == 1.0


def test_a_free_slot_means_no_wait_and_a_crowd_some_delay() -> None:
    load = Load("r", slots=8, active=4, backlog=400.0)
    for _ in range(4):
        begin(load, 100.0, 0.0)
    assert expected_delay_s(load, 0.0, 1.0) == pytest.approx(1.5)


def test_a_delay_is_never_negative_though_two_sums_of_the_same_floats_differ() -> None:
    """One of -1e-17 s left nobody within 5 % of the shortest, and a pick raised IndexError."""
    load = Load("r", slots=2, active=2, backlog=math.nextafter(0.4, 0.0))
    begin(load, 0.2, 0.0)
    begin(load, 0.2, 0.0)
    assert expected_delay_s(load, 0.2, 0.0) == 0.0


def test_errors_make_a_delay_longer_however_fast_they_come() -> None:
    assert expected_delay_s(Load("r", pace=0.1, error_rate=0.99), 0.0, 1.0) > expected_delay_s(Load("s"), 0.0, 1.0)


def test_patience_doubles_while_a_replica_stays_slow_and_ends_when_it_does_not() -> None:
    load, seen = Load("r", pace=4.0, known=KNOWN), []
    for _ in range(6):
        learn(load, 4.0, again=True, best=1.0)
        seen.append(load.patience)
    assert seen == [2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE, MOST_PATIENCE, MOST_PATIENCE, MOST_PATIENCE]
    for _ in range(3):
        learn(load, 1.0, again=True, best=1.0)
    assert load.patience == PATIENCE
