"""Who comes to a full server is told when its turn comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.crowding import LONGEST_S, SHORTEST_S, UNKNOWN_S, Crowd, enter

counts = st.integers(0, 10_000)
rates = st.none() | st.floats(0, 1e6)


@given(counts, st.integers(1, 10_000), counts, rates)
def test_a_question_is_let_in_exactly_while_there_is_room(inside, most, told, rate) -> None:
    entry = enter(Crowd(inside, most, told, rate))
    assert entry.admitted == (inside < most)
    assert entry.admitted or SHORTEST_S <= entry.retry_after_s <= LONGEST_S


@given(st.integers(0, 500), st.floats(1.0, 1000.0))
def test_who_comes_later_is_told_a_later_time_or_the_same(told, rate) -> None:
    sooner, later = (enter(Crowd(5, 5, n, rate)).retry_after_s for n in (told, told + 1))
    assert sooner <= later


def test_a_turn_is_as_long_as_those_before_take() -> None:
    assert enter(Crowd(256, 256, told=199, per_second=20.0)).retry_after_s == 10.0


def test_where_nothing_was_answered_little_is_promised() -> None:
    assert enter(Crowd(1, 1)).retry_after_s == UNKNOWN_S
    assert enter(Crowd(1, 1, told=7, per_second=0.0)).retry_after_s == UNKNOWN_S


def test_the_reason_holds_the_numbers() -> None:
    assert enter(Crowd(256, 256, 3, 20.0)).reason == (
        "256 questions are being answered, 256 may be at once, 3 were told to come back before; "
        "20 are answered a second"
    )
