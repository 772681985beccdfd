"""Turns between collections, jobs and priorities."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.sharing import PASSED_OVER, Line, Turns, most_of, order, taken

lines = st.lists(
    st.builds(
        Line,
        job=st.integers(0, 10**6).map(lambda number: f"job_{number}"),
        collection=st.sampled_from("abc"),
        priority=st.sampled_from((-1, 0, 1)),
        running=st.integers(0, 5),
        first=st.none() | st.integers(1, 99),
    ),
    max_size=8,
    unique_by=lambda line: line.job,
)


def line(job: str, *, collection: str = "a", priority: int = 0, running: int = 0, first: int | None = 1) -> Line:
    return Line(job, collection, priority, running, first)


def served(waiting: list[Line], turns: int) -> list[str]:
    """Which jobs have the turn when each document ends before the next one starts."""
    state, jobs = Turns(), []
    for _ in range(turns):
        first = order(16, waiting, state).lines[0]
        state = taken(state, waiting, first)
        jobs.append(first.job)
    return jobs


def test_when_nothing_waits_nobody_has_the_turn() -> None:
    assert order(4, [], Turns()).lines == ()
    assert order(4, [line("x", first=None)], Turns()).reason == "nothing waits"


def test_one_document_behind_twenty_thousand_of_its_collection_has_the_next_turn() -> None:
    folder, letter = line("folder", running=11, first=1), line("letter", first=20_001)
    assert order(16, [folder, letter], Turns()).lines[0] is letter


def test_the_collection_with_the_fewest_running_goes_first_however_many_jobs_another_has() -> None:
    many = [line(f"job{at}", collection="big", running=1, first=at) for at in range(1, 10)]
    small = line("small", collection="small", first=99)
    assert order(16, [*many, small], Turns()).lines[0] is small


def test_jobs_that_are_equal_take_turns() -> None:
    jobs = served([line("a", first=1), line("b", first=2), line("c", first=3)], 9)
    assert jobs == ["a", "b", "c"] * 3


def test_a_collection_never_holds_more_than_three_quarters_of_the_slots() -> None:
    full = line("x", running=12)
    assert order(16, [full], Turns()).lines == ()
    assert "full share" in order(16, [full], Turns()).reason
    assert order(16, [replace(full, running=11)], Turns()).lines
    assert most_of(1) == 1
    assert order(1, [line("x")], Turns()).lines


def test_a_higher_priority_goes_first_and_a_lower_one_has_a_ninth_of_the_turns() -> None:
    jobs = served([line("low", priority=-1), line("high", priority=1, collection="b")], 90)
    assert jobs[:8] == ["high"] * 8
    assert jobs.count("low") == 10


@given(lines, st.integers(1, 32))
def test_only_who_waits_below_its_share_is_asked_and_every_one_of_them_is(waiting: list[Line], slots: int) -> None:
    running = {one.collection: 0 for one in waiting}
    for one in waiting:
        running[one.collection] += one.running
    able = {one.job for one in waiting if one.first is not None and running[one.collection] < most_of(slots)}
    assert {one.job for one in order(slots, waiting, Turns()).lines} == able


@given(st.lists(st.sampled_from((-1, 0, 1)), min_size=1, max_size=6), st.integers(1, 60))
def test_no_priority_that_waits_is_passed_over_for_long(priorities: list[int], turns: int) -> None:
    """With three priorities two may be overdue at once: then one of them waits for one turn more."""
    waiting = [line(f"job{at}", priority=one, first=at + 1) for at, one in enumerate(priorities)]
    jobs = served(waiting, turns)
    for priority in set(priorities):
        gap = 0
        for job in jobs:
            gap = 0 if priorities[int(job.removeprefix("job"))] == priority else gap + 1
            assert gap <= PASSED_OVER + 1


@given(st.integers(2, 6), st.integers(1, 40))
def test_between_equals_nobody_has_a_second_turn_before_everybody_had_one(jobs: int, turns: int) -> None:
    found = served([line(f"job{at}", first=at + 1) for at in range(jobs)], turns)
    counts = [found.count(f"job{at}") for at in range(jobs)]
    assert max(counts) - min(counts) <= 1
