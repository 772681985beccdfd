"""Dead, slow and starved told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.leasing import Seen, Verdict, judge

times = st.floats(0, 10_000)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Seen(since=990, last_sign=995), Verdict.FINE),
        (Seen(since=0, last_sign=950), Verdict.SLOW),
        (Seen(since=0, last_sign=899), Verdict.DEAD),
        (Seen(since=0, last_sign=0, waits_for="a worker"), Verdict.STARVED),
        (Seen(since=950, last_sign=950, waits_for="the model"), Verdict.FINE),
    ],
)
def test_silence_is_judged_by_what_it_is_due_to(seen: Seen, verdict: Verdict) -> None:
    judgement = judge(100, seen, now=1000)
    assert judgement.verdict == verdict
    assert judgement.renewed == (verdict != Verdict.DEAD)
    assert judgement.reason


@given(st.floats(1, 1000), times, times, times)
def test_who_waits_for_a_worker_or_the_model_never_loses_its_lease(
    lease_s: float, since: float, silent: float, now: float
) -> None:
    assert judge(lease_s, Seen(since, now - silent, "the model"), now).renewed


@given(st.floats(1, 1000), times, times)
def test_only_silence_longer_than_the_lease_is_death(lease_s: float, under_way: float, now: float) -> None:
    assert judge(lease_s, Seen(now - under_way, now), now).renewed
    assert not judge(lease_s, Seen(now - under_way, now - lease_s - 1), now).renewed
