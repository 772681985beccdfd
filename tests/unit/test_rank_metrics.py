"""Rank metrics: hand-computed values, and what must hold of any ranking."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.rank_metrics import ndcg, recall, reciprocal_rank

IDS = [f"d{number}" for number in range(12)]
GAINS = st.dictionaries(st.sampled_from(IDS), st.sampled_from([0, 1, 2, 3]), min_size=1).filter(
    lambda gains: any(gains.values())
)
RANKINGS = st.lists(st.sampled_from(IDS), unique=True)
CUTS = st.integers(1, 12)
MEASURES = (ndcg, recall, reciprocal_rank)


def test_ndcg_with_graded_gains_matches_the_hand_computed_value():
    """DCG = 3/log2(2) + 2/log2(3) + 0 + 1/log2(5); the ideal order of gains is 3, 3, 2, 1."""
    ranking = ["a", "b", "x", "c"]
    gains = {"a": 3, "b": 2, "c": 1, "missed": 3}
    dcg = 3 + 2 / log2(3) + 1 / log2(5)
    ideal = 3 + 3 / log2(3) + 2 / 2 + 1 / log2(5)
    assert ndcg(ranking, gains, 10) == pytest.approx(dcg / ideal)


def test_ndcg_with_binary_gains_matches_the_hand_computed_value():
    assert ndcg(["x", "a", "y", "b"], {"a": 1, "b": 1}, 10) == pytest.approx(
        (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3))
    )


def test_what_lies_beyond_the_cut_does_not_count():
    assert ndcg(["x", "a"], {"a": 1}, 1) == 0
    assert recall(["x", "a"], {"a": 1}, 1) == 0
    assert reciprocal_rank(["x", "a"], {"a": 1}, 1) == 0


def test_recall_counts_every_relevant_document_alike():
    assert recall(["a", "x", "b"], {"a": 1, "b": 3, "c": 2, "judged": 0}, 3) == pytest.approx(2 / 3)


def test_reciprocal_rank_looks_at_the_first_relevant_document_only():
    assert reciprocal_rank(["x", "y", "a", "b"], {"a": 1, "b": 1}, 10) == pytest.approx(1 / 3)


def test_a_document_judged_irrelevant_counts_as_one_that_was_not_judged():
    assert reciprocal_rank(["judged", "a"], {"judged": 0, "a": 1}, 10) == 0.5
    assert ndcg(["judged", "a"], {"judged": -1, "a": 1}, 10) == pytest.approx(1 / log2(3))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_question_without_a_relevant_document_is_refused(measure):
    with pytest.raises(ValueError, match="no judged document"):
        measure(["a"], {"a": 0}, 10)


@pytest.mark.parametrize("measure", MEASURES)
@given(ranking=RANKINGS, gains=GAINS, k=CUTS)
def test_every_measure_stays_between_nothing_and_one(measure, ranking, gains, k):
    assert 0 <= measure(ranking, gains, k) <= 1 + 1e-12


@given(gains=GAINS, k=CUTS)
def test_the_perfect_ranking_scores_one(gains, k):
    best = sorted(gains, key=lambda one: -gains[one])
    assert ndcg(best, gains, k) == pytest.approx(1)
    assert reciprocal_rank(best, gains, k) == 1
    assert recall(best, gains, len(best)) == 1


@pytest.mark.parametrize("measure", MEASURES)
@given(ranking=st.permutations(IDS), gains=GAINS, k=CUTS, place=st.integers(0, len(IDS) - 2))
def test_moving_a_better_document_up_never_lowers_a_measure(measure, ranking, gains, k, place):
    better, worse = sorted(ranking[place : place + 2], key=lambda one: -gains.get(one, 0))
    before, after = ranking[:place], ranking[place + 2 :]
    better_first = measure([*before, better, worse, *after], gains, k)
    assert better_first >= measure([*before, worse, better, *after], gains, k) - 1e-12


@pytest.mark.parametrize("measure", [recall, reciprocal_rank])
@given(ranking=RANKINGS, gains=GAINS, k=CUTS)
def test_looking_further_down_never_lowers_recall_or_reciprocal_rank(measure, ranking, gains, k):
    assert measure(ranking, gains, k + 1) >= measure(ranking, gains, k)
