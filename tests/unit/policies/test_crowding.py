"""Who comes to a full server is told when its turn comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.crowding import LONGEST_S, SHORTEST_S, UNKNOWN_S, Crowd, turn

NOW = 1000.0
counts = st.integers(0, 10_000)
times = st.lists(st.floats(NOW - 30, NOW), max_size=50).map(sorted)


@given(counts, counts, times, st.floats(NOW - 60, NOW))
def test_a_turn_is_neither_at_once_nor_never(inside, told, answered, since) -> None:
    assert SHORTEST_S <= turn(Crowd(inside, told, answered, since), NOW).retry_after_s <= LONGEST_S


@given(counts, times)
def test_who_comes_later_is_told_a_later_time_or_the_same(told, answered) -> None:
    sooner, later = (turn(Crowd(5, n, answered, NOW - 30), NOW).retry_after_s for n in (told, told + 1))
    assert sooner <= later


def every(seconds: float, count: int) -> list[float]:
    return [NOW - seconds * n for n in reversed(range(count))]


def test_a_turn_is_as_long_as_those_before_take() -> None:
    assert turn(Crowd(128, 199, every(0.05, 101), NOW - 5.0), NOW).retry_after_s == pytest.approx(10.0)


def test_the_time_before_the_crowd_says_nothing_of_how_fast_it_goes() -> None:
    """One question a second was answered, because one a second came."""
    quiet = [NOW - 20.0 + n for n in range(19)]
    crowd = Crowd(128, 99, [*quiet, *every(0.01, 50)], NOW - 0.5)
    assert turn(crowd, NOW).retry_after_s == pytest.approx(1.0, rel=0.1)


def test_where_nothing_was_answered_little_is_promised() -> None:
    assert turn(Crowd(1, 0, [], NOW), NOW).retry_after_s == UNKNOWN_S
    assert turn(Crowd(1, 7, [NOW - 1.0], NOW - 0.5), NOW).retry_after_s == UNKNOWN_S


def test_the_reason_holds_the_numbers() -> None:
    assert turn(Crowd(128, 3, every(0.05, 101), NOW - 5.0), NOW).reason == (
        "128 questions are being answered, as many as may be at once, and 3 were told to come back; "
        "20 are answered a second"
    )
