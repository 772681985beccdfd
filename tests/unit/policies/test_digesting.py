"""Questions to numbers: the order does not matter, nothing is lost, and no data is no number."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.digesting import DAY_S, HOUR_S, Latency, Question, Use, digest, quantile

NOW = 1_700_000_000.0


def asked(key: str = "k", **given: object) -> Question:
    return replace(Question(key, NOW - 60, "r", "default", "ask", "hybrid", "answered"), **given)


questions = st.lists(
    st.builds(
        asked,
        key=st.uuids().map(str),
        at=st.floats(NOW - 10 * DAY_S, NOW),
        outcome=st.sampled_from(("answered", "abstained", "nothing", "failed", "left")),
        collection=st.sampled_from("ab"),
        seconds=st.dictionaries(st.sampled_from(("embed", "total")), st.floats(0, 10)),
        documents=st.lists(st.sampled_from("xyz"), max_size=3).map(tuple),
        cached=st.sampled_from((None, True, False)),
        rating=st.sampled_from((None, "up", "down")),
    ),
    max_size=40,
)


@given(questions, st.randoms())
def test_the_order_of_the_questions_does_not_matter(found, random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    one, other = (digest(each, NOW - 10 * DAY_S, NOW) for each in (found, shuffled))
    assert replace(one, latency=()) == replace(other, latency=())
    assert sorted(one.latency, key=repr) == sorted(other.latency, key=repr)


@given(questions)
def test_every_question_is_in_every_count_once(found) -> None:
    numbers = digest(found, NOW - 10 * DAY_S, NOW)
    for counts in (numbers.kinds, numbers.outcomes, numbers.collections, dict(numbers.periods)):
        assert sum(counts.values()) == len(found)
    starts = [start for start, _ in numbers.periods]
    assert all(later - earlier == numbers.period_s for earlier, later in pairwise(starts))
    assert 0 <= numbers.cache_hits <= numbers.cache_lookups <= len(found)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values_and_covers_its_share(values, share) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_of_nothing_there_are_no_numbers() -> None:
    numbers = digest([], NOW - DAY_S, NOW)
    assert (numbers.questions, numbers.periods, numbers.latency, numbers.tokens) == (0, (), (), None)
    assert quantile([], 0.5) is None


def test_a_step_counts_only_where_it_was_taken() -> None:
    found = digest(
        [asked("a", seconds={"total": 1.0, "rerank": 0.5}), asked("b", seconds={"total": 3.0})], NOW - 1, NOW
    )
    assert set(found.latency) == {Latency("total", 2, 1.0, 3.0), Latency("rerank", 1, 0.5, 0.5)}


def test_a_document_counts_once_a_question_and_by_its_collection() -> None:
    one = asked("a", documents=("x", "x", "y"), cited=("x",))
    other = asked("b", collection="other", documents=("x",))
    assert digest([one, other], NOW - 1, NOW).used == (
        Use("default", "x", 1, 1), Use("default", "y", 1, 0), Use("other", "x", 1, 0),
    )  # fmt: skip


def test_two_days_are_told_by_the_hour_and_more_by_the_day() -> None:
    for days, size in ((1.9, HOUR_S), (3, DAY_S)):
        assert digest([asked(at=NOW - days * DAY_S)], 0, NOW).period_s == size


def test_what_was_not_answered_comes_newest_first() -> None:
    found = [asked(str(n), at=NOW - n, outcome="abstained" if n % 2 else "answered") for n in range(6)]
    assert [one.key for one in digest(found, 0, NOW).unanswered] == ["1", "3", "5"]
