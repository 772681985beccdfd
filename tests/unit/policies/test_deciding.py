"""Retry, admission and start order: pure, so stated as properties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.errors import InvalidSettings
from ragworks.policies import admission, retrying
from ragworks.policies.ordering import start_order

SETTINGS = retrying.RetrySettings(max_attempts=4, base_delay_s=1.0, max_delay_s=8.0)


@given(st.integers(1, 3), st.integers())
def test_a_transient_error_is_tried_again_after_a_delay_that_doubles_and_is_bounded(attempts: int, seed: int) -> None:
    decision = retrying.decide(SETTINGS, attempts, transient=True, rng=Random(seed))
    ceiling = min(8.0, 2.0 ** (attempts - 1))
    assert decision.delay_s is not None
    assert ceiling / 2 <= decision.delay_s <= ceiling


@pytest.mark.parametrize(("attempts", "transient"), [(1, False), (4, True), (9, True)])
def test_a_permanent_error_or_the_last_attempt_ends_it(attempts: int, transient: bool) -> None:
    decision = retrying.decide(SETTINGS, attempts, transient=transient, rng=Random(0))
    assert decision.delay_s is None
    assert decision.reason


def seen(documents: int, finished_at: tuple[float, ...] = (), size_bytes: int = 0) -> admission.QueueState:
    return admission.QueueState(documents, size_bytes, 100, 1000, finished_at)


def test_an_empty_queue_admits_what_fits() -> None:
    assert admission.decide(seen(0), 100, 1000, now=0).admitted


@pytest.mark.parametrize(("documents", "size_bytes"), [(101, 1), (1, 1001)])
def test_what_could_never_fit_is_said_to_be_impossible(documents: int, size_bytes: int) -> None:
    decision = admission.decide(seen(0), documents, size_bytes, now=0)
    assert not decision.admitted
    assert not decision.possible


def test_the_wait_follows_from_the_measured_drain_rate() -> None:
    """One document a second, four must go: four seconds, and twice the two by which a count of four varies."""
    finished = tuple(float(at) for at in range(90, 101))
    decision = admission.decide(seen(100, finished), 4, 1, now=100)
    assert decision.retry_after_s == pytest.approx(8.0)
    assert decision.possible


def test_with_nothing_measured_the_wait_is_short_and_never_zero() -> None:
    assert admission.decide(seen(100), 1, 1, now=0).retry_after_s == admission.UNKNOWN_DRAIN_S
    assert admission.drain_s((), 5, now=0) is None


@given(st.integers(0, 200), st.integers(1, 100), st.lists(st.floats(0, 100), max_size=20))
def test_a_wait_is_always_within_its_bounds(documents: int, wanted: int, finished: list[float]) -> None:
    decision = admission.decide(seen(documents, tuple(sorted(finished))), wanted, 1, now=100)
    assert decision.admitted == (documents + wanted <= (95 if wanted > admission.SMALL and documents else 100))
    if not decision.admitted:
        assert admission.SHORTEST_S <= decision.retry_after_s <= admission.LONGEST_S


def test_when_bytes_are_short_the_wait_counts_them() -> None:
    finished = tuple(float(at) for at in range(90, 101))
    decision = admission.decide(seen(10, finished, size_bytes=1000), 1, 400, now=100)
    assert decision.retry_after_s == pytest.approx(8.0)


def test_services_start_after_what_they_need_and_want() -> None:
    needs = {"api": (), "search": ("store",), "embed": (), "store": ()}
    wants = {"api": ("search",), "search": ("embed", "absent")}
    order = start_order(needs, wants)
    assert order.index("store") < order.index("search") < order.index("api")
    assert order.index("embed") < order.index("search")


def test_a_need_that_is_not_there_and_a_circle_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="search needs store"):
        start_order({"search": ("store",)}, {})
    with pytest.raises(InvalidSettings, match="circle"):
        start_order({"a": ("b",), "b": ("a",)}, {})


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0), ("-5", 0.0)]
    + [(header, None) for header in ("", "soon", "nan", "9" * 400, "Fri, 01 Jan 10000 00:00:00 GMT")],
)
def test_a_retry_after_is_read_as_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    assert retrying.named_s(header, now=60.0) == seconds
