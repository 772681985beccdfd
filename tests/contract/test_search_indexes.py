"""What every storage_protocols.VectorIndex and WordIndex promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworks.storage.vector_index import EXACT_BELOW, HnswIndex
from ragworks.storage.word_index import Bm25Index


def unit(count: int, seed: int = 0, dimension: int = 16) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def keys(count: int, first: int = 1 << 24) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.uint64)


def test_the_nearest_come_first_with_their_cosine() -> None:
    index, vectors = HnswIndex(16), unit(200)
    index.add(keys(200), vectors)
    found = index.search(vectors[7], 5)
    best = np.argsort(-(vectors @ vectors[7]))[:5]
    assert [key - (1 << 24) for key, _ in found] == best.tolist()
    assert found[0][1] == pytest.approx(1.0, abs=2e-3)


def test_beyond_the_exact_size_recall_stays_high() -> None:
    """Bound: the graph measured .99 at ten neighbours; .95 leaves room for this seed."""
    count = EXACT_BELOW + 500
    index, vectors = HnswIndex(16), unit(count)
    index.add(keys(count), vectors)
    queries = unit(50, seed=1)
    hits = sum(
        len({key - (1 << 24) for key, _ in index.search(query, 10)} & set(np.argsort(-(vectors @ query))[:10].tolist()))
        for query in queries
    )
    assert hits / 500 > 0.95


def test_an_empty_index_finds_nothing_and_an_unknown_key_has_no_score() -> None:
    index = HnswIndex(16)
    assert index.search(unit(1)[0], 10) == []
    assert index.scores(unit(1)[0], [5]) == {}
    assert index.search(unit(1)[0], 10, keys(3)) == []
    index.remove(keys(3))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30))
def test_after_any_adding_and_removing_the_keys_are_those_that_remain(steps: list[tuple[bool, int]]) -> None:
    index, model = HnswIndex(16), {}
    for number, (add, key) in enumerate(steps):
        if add:
            model[key] = unit(1, seed=number)[0]
            index.add(np.array([key], dtype=np.uint64), model[key][None])
        else:
            model.pop(key, None)
            index.remove(np.array([key], dtype=np.uint64))
    assert sorted(index.keys().tolist()) == sorted(model)
    for key, vector in model.items():
        assert index.scores(vector, [key])[key] == pytest.approx(1.0, abs=2e-3)


def test_only_allowed_keys_are_searched() -> None:
    index, vectors = HnswIndex(16), unit(100)
    index.add(keys(100), vectors)
    allowed = keys(100)[[3, 50]]
    assert {key for key, _ in index.search(vectors[7], 10, allowed)} == set(allowed.tolist())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"12345")
    with pytest.raises(ValueError, match="not a vector index"):
        HnswIndex(16, tmp_path / "bad")
    index = HnswIndex(8)
    index.add(keys(1), unit(1, dimension=8))
    index.save(tmp_path / "other")
    with pytest.raises(ValueError, match="8 dimensions, expected 16"):
        HnswIndex(16, tmp_path / "other")


@pytest.fixture
def words(tmp_path: Path) -> Bm25Index:
    index = Bm25Index(tmp_path)
    texts = ["the battery of the bike", "a boat has a keel", "batteries, batteries and a charger"]
    index.apply([], [(version, version << 24, text) for version, text in enumerate(texts, start=1)])
    return index


def test_words_are_found_by_their_stem_best_first(words: Bm25Index) -> None:
    assert [key >> 24 for key, _ in words.search("Battery?", 10)] == [3, 1]


@pytest.mark.parametrize("question", ["", "the of and", '"', "AND OR", "keel:*", "a:b~ (", "\x00", "ß" * 5000, "-keel"])
def test_any_text_is_a_question(words: Bm25Index, question: str) -> None:
    assert isinstance(words.search(question, 10), list)


def test_a_word_query_can_be_kept_to_some_versions_or_keys(words: Bm25Index) -> None:
    free = dict(words.search("battery keel", 10))
    assert [key >> 24 for key, _ in words.search("battery keel", 10, [1])] == [1]
    assert words.scores("battery keel", [1 << 24, 9 << 24]) == {1 << 24: pytest.approx(free[1 << 24])}
    assert words.search("battery", 10, []) == []


def test_applying_a_change_again_changes_nothing(words: Bm25Index) -> None:
    """A crash between the index and its stamp means that changes come twice."""
    for _ in range(2):
        words.apply([2, 4], [(4, 4 << 24, "an anchor")])
    assert sorted(words.keys().tolist()) == [1 << 24, 3 << 24, 4 << 24]


def test_words_survive_reopening(words: Bm25Index, tmp_path: Path) -> None:
    words.close()
    assert [key >> 24 for key, _ in Bm25Index(tmp_path).search("keel", 10)] == [2]
