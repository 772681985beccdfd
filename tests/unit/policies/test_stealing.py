"""Which waiting call a free replica takes over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.stealing import Queue, StealSettings, choose

seconds = st.floats(0, 100)
queues = st.lists(st.builds(Queue, st.uuids().map(str), seconds, seconds), max_size=6)


def test_where_nothing_waits_nothing_is_taken() -> None:
    assert choose(StealSettings(), []).replica_id is None


def test_the_call_with_the_longest_wait_is_taken_over() -> None:
    decision = choose(StealSettings(), [Queue("a", 1.0, 0.2), Queue("b", 3.0, 0.2)])
    assert decision.replica_id == "b"
    assert decision.reason == "it would have waited 3 s more at b"


def test_a_call_that_is_soon_begun_stays() -> None:
    assert choose(StealSettings(wait_s=0.1), [Queue("a", 0.09, 0.0)]).replica_id is None


def test_a_call_that_waited_for_longer_than_it_still_has_to_stays() -> None:
    """Its replica may have done part of it, as one that gathers batches does; that work would be lost."""
    assert choose(StealSettings(), [Queue("a", 1.0, 1.5)]).replica_id is None


@given(queues, st.floats(0, 10))
def test_none_waits_longer_than_the_one_that_is_taken(found: list[Queue], wait_s: float) -> None:
    chosen = choose(StealSettings(wait_s), found).replica_id
    worth = [one for one in found if one.wait_s > max(wait_s, one.age_s)]
    assert (chosen is None) == (not worth)
    assert all(one.wait_s <= next(two.wait_s for two in worth if two.replica_id == chosen) for one in worth)
