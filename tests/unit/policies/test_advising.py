"""Advice: a change only on evidence, undecided without data, and a health score that says what it is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies import advising
from ragworks.policies.advising import ADVISERS, BY_CODE, ENOUGH, Advice, Seen, Surroundings, advise, health
from ragworks.policies.digesting import Question, digest
from unit.policies.test_digesting import NOW, asked, questions

AROUND = Surroundings(1.0, 5.0, 1000, 500, 1, 1, 4, documents=10, evictions=0, failed={})


def seen(found: list[Question], **around: object) -> Seen:
    return Seen(found, digest(found, NOW - 1000, NOW), replace(AROUND, **around))


def abstained(support: float) -> Question:
    return asked(outcome="abstained", support=support)


ANSWERED = asked(support=3.0, cached=False, seconds={"embed": 0.01, "total": 0.1})


def embedded(*seconds: float) -> list[Question]:
    return [asked(cached=False, seconds={"embed": took, "total": took + 0.05}) for took in seconds]


def reranked(late: int, of: int) -> list[Question]:
    return [asked(seconds={"rerank": 5.01 if n < late else 1.0, "total": 6.0}) for n in range(of)]


CHANGES = [
    (advising.support_threshold, [abstained(0.6)] * 20 + [ANSWERED] * 40, {}, "try 0.6 in place of 1"),
    (advising.embedding_replicas, embedded(*[0.1] * 5, *[0.6] * 55), {}, "set 2 in place of 1"),
    (advising.cache_size, [asked(cached=n == 0) for n in range(60)], {"evictions": 1000}, "set 2000 in place of 1000"),
    (advising.queue_size, [], {"refusals": 12}, "set 3 in place of 1"),
    (advising.queue_size, [], {"refusals": 12, "workers": 3}, "set 1000 in place of 500"),
    (advising.rerank_budget, reranked(4, 60), {}, "set 10 in place of 5"),
]

NO_CHANGES = [
    (advising.support_threshold, [abstained(-5.0)] * 20 + [ANSWERED] * 40, {}, "far below the threshold"),
    (advising.support_threshold, [abstained(0.6)] * 5 + [ANSWERED] * 55, {}, "few abstain"),
    (advising.embedding_replicas, embedded(*[0.5] * 60), {}, "slow, but nobody waits"),
    (advising.embedding_replicas, embedded(*[0.1] * 5, *[0.6] * 55), {"replicas": 4}, "no core is free"),
    (advising.embedding_replicas, embedded(*[0.1] * 5, *[0.6] * 55), {"replicas_fixed": "the load scales"}, "by load"),
    (advising.embedding_replicas, embedded(*[0.001] * 5, *[0.01] * 55), {}, "fast enough"),
    (advising.cache_size, [asked(cached=False)] * 60, {}, "nothing had to leave"),
    (advising.cache_size, [asked(cached=True)] * 60, {"evictions": 5000}, "mostly found"),
    (advising.queue_size, [], {"refusals": 2}, "hardly refused"),
    (advising.rerank_budget, reranked(1, 60), {}, "rarely late"),
]


@pytest.mark.parametrize(("adviser", "found", "around", "told"), CHANGES)
def test_a_change_names_a_setting_a_value_and_the_evidence(adviser, found, around, told) -> None:
    advice = adviser(seen(found, **around))
    assert (advice.verdict, told in advice.advice) == ("change", True), advice
    assert any(character.isdigit() for character in advice.evidence)


@pytest.mark.parametrize(("adviser", "found", "around", "why"), NO_CHANGES)
def test_what_does_not_suffice_changes_nothing(adviser, found, around, why) -> None:
    assert adviser(seen(found, **around)).verdict == "fine", why


def test_a_document_that_failed_for_a_limit_names_the_limit() -> None:
    changes = [
        one for one in advise(seen([], failed={"read_timeout": 3, "empty_document": 9})) if one.verdict == "change"
    ]
    assert changes == [
        Advice(BY_CODE["read_timeout"], "change", "3 documents failed with read_timeout", "raise it, or split them")
    ]


def test_too_few_questions_are_said_and_judged_by_nobody() -> None:
    few = advising.support_threshold(seen([abstained(0.9)] * 12))
    assert (few.verdict, few.evidence) == (
        "undecided",
        f"not enough data: 12 of {ENOUGH} answers whose support is known",
    )


@given(questions.filter(lambda found: len(found) < ENOUGH))
def test_below_the_least_number_no_question_ever_changes_a_setting(found) -> None:
    assert not [one for one in advise(seen(found)) if one.verdict == "change"]


@given(questions)
def test_what_is_not_known_is_undecided_and_never_fine_or_changed(found) -> None:
    unknown = seen(found, documents=None, evictions=None, failed=None)
    verdicts = {one.setting: one.verdict for one in advise(unknown)}
    assert len(advise(unknown)) == len(ADVISERS)
    for setting in (*BY_CODE.values(), "embeddings_service.cache_config.max_size"):
        assert verdicts[setting] == "undecided"
    assert health(unknown).parts[3].value is None


@given(st.floats(-20, 0.99), st.integers(0, 60), st.integers(0, 60))
def test_a_proposed_threshold_is_lower_and_would_answer_half_of_the_near_ones(support, near, far) -> None:
    found = [abstained(support)] * near + [abstained(-50.0)] * far + [ANSWERED] * ENOUGH
    advice = advising.support_threshold(seen(found))
    if advice.verdict == "change":
        proposed = float(advice.advice.split()[1])
        assert proposed <= support + 1e-9
        assert proposed >= AROUND.support_threshold - advising.NEAR - 0.1


@given(questions)
def test_a_health_score_is_the_weighted_mean_of_the_parts_that_are_known(found) -> None:
    made = health(seen(found))
    assert sum(part.weight for part in made.parts) == pytest.approx(1)
    assert all(part.value is None or 0 <= part.value <= 1 for part in made.parts)
    assert all("not enough data" in part.why for part in made.parts if part.value is None)
    known = [part for part in made.parts if part.value is not None]
    if made.score is None:
        assert sum(part.weight for part in known) < advising.KNOWN
    else:
        values = [100 * part.value for part in known]
        assert min(values) - 0.5 <= made.score <= max(values) + 0.5


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"outcome": "abstained"}, "answers"),
        ({"outcome": "failed", "error": "not_ready"}, "errors"),
        ({"seconds": {"total": 9.0}}, "speed"),
        ({"rating": "down"}, "feedback"),
    ],
)
def test_what_goes_wrong_lowers_its_part_and_the_score(change, part) -> None:
    well = [asked(rating="up", seconds={"total": 0.1})] * 40
    ill = well[:30] + [replace(one, **change) for one in well[:10]]
    before, after = health(seen(well)), health(seen(ill))
    assert (before.score, before.known) == (100, 1)
    assert after.score is not None
    assert after.score < 100
    assert {one.name for one in after.parts if one.value != 1} >= {part}
