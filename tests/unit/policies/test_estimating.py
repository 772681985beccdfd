"""Estimates: what is learnt, what is believed before, and how jobs share the machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.estimating import FINISH_S, Learnt, completion_s, errors, expect, kind_of, known_costs, learn
from ragworks.records import UNCHANGED, Cost, OpenWork

sizes = st.integers(0, 10**9)
costs = st.builds(
    Cost,
    kind=st.sampled_from((".pdf", ".txt", "")),
    size_bytes=sizes,
    chunks=st.integers(0, 5000),
    read_s=st.floats(0, 100),
    embed_s=st.floats(0, 100),
)


def taught(*seen: Cost) -> Learnt:
    learnt = Learnt()
    for cost in seen:
        learnt = learn(learnt, cost)
    return learnt


def text(size: int = 1000, *, read_s: float = 0.5, chunks: int = 2, embed_s: float = 0.2) -> Cost:
    return Cost(".txt", size, chunks, read_s, embed_s)


def work(job: str, documents: int, *, collection: str = "a", priority: int = 0, kind: str = ".txt") -> OpenWork:
    return OpenWork(job, collection, priority, kind, documents, documents * 1000)


KNOWN = taught(*[text()] * 100)


@given(sizes, st.sampled_from((".pdf", ".docx", ".txt", "", ".xyz")))
def test_with_nothing_known_every_document_costs_something_sane(size: int, kind: str) -> None:
    expected = expect(Learnt(), kind, size)
    assert 0 < expected.read_s < 1 + 5 * size / 1e6
    assert expected.chunks >= 1


def test_what_documents_of_a_kind_and_size_cost_is_what_the_next_is_expected_to() -> None:
    expected = expect(KNOWN, ".txt", 1000)
    assert (expected.read_s, expected.chunks) == (pytest.approx(0.5, rel=0.03), pytest.approx(2, rel=0.03))
    assert expected.embed_s == pytest.approx(0.2, rel=0.1)


def test_a_size_never_seen_is_scaled_from_the_nearest() -> None:
    assert expect(KNOWN, ".txt", 4000).chunks == pytest.approx(8, rel=0.15)


def test_the_costs_of_one_kind_say_nothing_of_another() -> None:
    assert expect(KNOWN, ".pdf", 1000).read_s == expect(Learnt(), ".pdf", 1000).read_s


def test_a_kind_that_always_fails_is_expected_to_take_as_little_as_it_did() -> None:
    failing = taught(*[Cost(".msg", 10_000_000, 0, 0.01, 0.0)] * 20)
    assert completion_s(failing, [OpenWork("mine", "a", 0, ".msg", 10, 10**8)], "mine", 16, 1) < 5
    assert expect(failing, ".txt", 1000).embed_s == expect(Learnt(), ".txt", 1000).embed_s


def test_one_outlier_does_not_move_what_is_known_far_and_a_change_is_learnt() -> None:
    once = learn(KNOWN, text(read_s=500.0))
    assert expect(once, ".txt", 1000).read_s < 0.6
    slower = taught(*[text()] * 100, *[text(read_s=2.0)] * 150)
    assert expect(slower, ".txt", 1000).read_s == pytest.approx(2.0, rel=0.1)


@given(st.lists(costs, max_size=30), sizes)
def test_estimates_stay_finite_and_positive_whatever_was_seen(seen: list[Cost], size: int) -> None:
    expected = expect(taught(*seen), ".pdf", size)
    assert 0 <= expected.read_s < float("inf")
    assert 0 < expected.chunks < float("inf")
    assert 0 <= expected.embed_s < float("inf")


def test_reading_and_embedding_overlap_so_the_slower_decides() -> None:
    """Reading takes 0.5 s a document and embedding 0.2 s: with one worker reading decides, with eight the model."""
    one = completion_s(KNOWN, [work("mine", 100)], "mine", slots=16, workers=1)
    eight = completion_s(KNOWN, [work("mine", 100)], "mine", slots=16, workers=8)
    assert one == pytest.approx(50, rel=0.05)
    assert eight == pytest.approx(20, rel=0.15)


def test_a_single_document_is_read_then_embedded() -> None:
    alone = completion_s(KNOWN, [work("mine", 1)], "mine", slots=16, workers=8)
    assert alone == pytest.approx(0.7 + FINISH_S, rel=0.1)


def test_a_small_job_does_not_wait_for_the_whole_of_a_large_one() -> None:
    """Of sixteen slots the letter has one beside fifteen of the folder: sixteen documents' time, not a thousand."""
    busy = completion_s(KNOWN, [work("folder", 1000), work("letter", 1)], "letter", slots=16, workers=1)
    assert busy < 20 * 0.7
    alone = completion_s(KNOWN, [work("letter", 1)], "letter", slots=16, workers=1)
    assert busy > alone


def test_two_equal_jobs_end_together_and_take_twice_as_long() -> None:
    both = [work("one", 100), work("two", 100, collection="b")]
    assert completion_s(KNOWN, both, "one", 16, 1) == pytest.approx(100, rel=0.05)


def test_a_high_priority_is_hardly_delayed_by_a_low_one() -> None:
    mixed = [work("low", 1000, priority=-1), work("high", 100, collection="b", priority=1)]
    assert completion_s(KNOWN, mixed, "high", 16, 1) < 70


def test_unchanged_documents_are_nearly_free() -> None:
    assert completion_s(KNOWN, [work("mine", 100, kind=UNCHANGED)], "mine", 16, 1) < 2


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(1, 32), st.integers(1, 16))
def test_more_work_beside_it_never_makes_a_job_end_sooner(jobs: list[int], slots: int, workers: int) -> None:
    open_work = [work(f"job{at}", count, collection="abc"[at % 3]) for at, count in enumerate(jobs)]
    alone = completion_s(KNOWN, open_work[:1], "job0", slots, workers)
    beside = completion_s(KNOWN, open_work, "job0", slots, workers)
    assert beside >= alone - 1e-6


def test_a_job_without_open_documents_has_ended() -> None:
    assert completion_s(KNOWN, [], "mine", 16, 1) == 0.0


def test_what_documents_cost_is_shown_of_the_kinds_that_come_often_and_unknown_before_any() -> None:
    assert known_costs(Learnt()) == {"embed_s_per_chunk": None, "read_s_per_mb": {}}
    seen = [text(), text(4000, read_s=2.0), Cost(".pdf", 2_000_000, 10, 3.0, 1.0), Cost(UNCHANGED, 5, 0, 0.1, 0.0)]
    shown = known_costs(taught(*seen * 40))
    assert shown["read_s_per_mb"] == {".txt": pytest.approx(500.0), ".pdf": pytest.approx(1.5)}
    assert shown["embed_s_per_chunk"] == pytest.approx(0.1, rel=0.03)
    rare = [Cost(f".{n}", 1000, 1, 1.0, 0.1) for n in range(20)]
    assert {".txt", ".pdf"} < set(known_costs(taught(*seen * 2, *rare))["read_s_per_mb"])
    assert len(known_costs(taught(*rare))["read_s_per_mb"]) == 10


def test_kinds_are_name_endings_unless_the_caller_said_a_media_type() -> None:
    assert kind_of(None, "a/b.PDF") == ".pdf"
    assert kind_of("text/plain", "a.pdf") == "text/plain"
    assert kind_of(None, "README") == kind_of(None, "odd.name with spaces") == kind_of(None, "x.") == ""


def test_errors_are_reported_only_when_there_are_jobs_to_compare() -> None:
    assert errors([]) == {"estimate_error_median": None, "estimate_error_p90": None}
    found = errors([(2.0, 1.0), (1.0, 1.0), (1.5, 1.0)])
    assert found == {"estimate_error_median": 0.5, "estimate_error_p90": 1.0}
