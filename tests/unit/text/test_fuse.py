"""Fusion is a property of two score tables, not of the order they come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.fuse import Distinct, fuse, min_max

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-5, 50, allow_nan=False), max_size=12)


@given(SCORES, SCORES, st.floats(0, 1))
def test_every_candidate_is_ranked_once_and_scores_never_rise(dense: dict, lexical: dict, weight: float) -> None:
    order = fuse(dense, lexical, weight)
    assert {key for key, _ in order} == dense.keys() | lexical.keys()
    scores = [score for _, score in order]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)


@given(SCORES, SCORES)
def test_the_order_of_the_input_does_not_matter(dense: dict, lexical: dict) -> None:
    turned = dict(reversed(dense.items())), dict(reversed(lexical.items()))
    assert fuse(dense, lexical, 0.7) == fuse(*turned, 0.7)


def test_what_is_best_in_both_legs_is_best() -> None:
    assert fuse({1: 0.9, 2: 0.1, 3: 0.5}, {1: 9.0, 2: 8.0, 3: 0.0}, 0.7)[0] == (1, 1.0)
    assert [key for key, _ in fuse({1: 0.9, 2: 0.1}, {2: 9.0, 1: 0.0}, 0.7)] == [1, 2]


def test_one_leg_alone_keeps_its_order() -> None:
    assert [key for key, _ in fuse({}, {1: 1.0, 2: 3.0}, 0.7)] == [2, 1]
    assert min_max({4: 2.0}) == {4: 1.0}


def test_near_duplicates_collapse_to_the_first() -> None:
    text = " ".join(f"word{at}" for at in range(200))
    almost = text.replace("word100", "other")
    assert kept(text, "something else entirely", almost, text) == [0, 1]


def test_texts_that_only_share_a_part_both_stay() -> None:
    shared = " ".join(f"word{at}" for at in range(100))
    one, other = (" ".join(f"{name}{at}" for at in range(60)) for name in ("this", "that"))
    assert kept(f"{shared} {one}", f"{shared} {other}", "", "a") == [0, 1, 2, 3]


def kept(*texts: str) -> list[int]:
    distinct = Distinct()
    return [at for at, text in enumerate(texts) if distinct.is_new(text)]
