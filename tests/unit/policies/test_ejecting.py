"""Who is left out, for how long, and who comes back: pure, so properties."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.ejecting import Action, EjectSettings, Seen, Standing, judge, most_out

SETTINGS = EjectSettings()
NOW = 1000.0
IN = Standing()
GOOD = Seen(calls=20, response_s=0.1)
BAD = Seen(calls=3, errors=3, errors_in_row=3)
PEERS = [0.1, 0.1, 0.12]

seen = st.builds(
    Seen,
    calls=st.floats(0, 100),
    errors=st.floats(0, 100),
    errors_in_row=st.integers(0, 10),
    response_s=st.none() | st.floats(0.001, 100),
)
standings = st.builds(
    Standing,
    until=st.none() | st.floats(900, 1100),
    ejections=st.integers(0, 40),
    back_at=st.floats(0, 1000) | st.just(-math.inf),
)
peers = st.lists(st.floats(0.001, 100), max_size=6)


@given(seen, standings, peers, st.integers(0, 20), st.integers(1, 20), st.floats(0, 1))
def test_a_replica_in_rotation_goes_only_while_fewer_are_out_than_may_be_and_never_the_last(
    what, standing, others, out, replicas, share
) -> None:
    settings = replace(SETTINGS, max_ejected_share=share)
    verdict = judge(settings, what, standing, others, out, replicas, NOW)
    assert verdict.reason
    if standing.until is None and verdict.action is Action.EJECT:
        assert out < most_out(settings, replicas) <= replicas - 1
    assert verdict.standing == standing or verdict.action is not Action.KEEP


@given(st.integers(1, 200), st.floats(0, 1))
def test_the_share_that_may_be_out_is_bounded(replicas, share) -> None:
    bound = most_out(replace(SETTINGS, max_ejected_share=share), replicas)
    assert 0 <= bound <= max(1, share * replicas)
    assert bound < replicas
    assert (bound == 0) == (share == 0 or replicas == 1)


def test_nothing_known_yet_keeps_it() -> None:
    assert judge(SETTINGS, Seen(), IN, [], 0, 5, NOW).action is Action.KEEP


def test_errors_in_a_row_eject() -> None:
    assert judge(SETTINGS, replace(BAD, errors_in_row=2), IN, PEERS, 0, 5, NOW).action is Action.KEEP
    verdict = judge(SETTINGS, BAD, IN, PEERS, 0, 5, NOW)
    assert (verdict.action, verdict.standing.until) == (Action.EJECT, NOW + SETTINGS.base_s)
    assert "3 errors in a row" in verdict.reason


def test_a_high_share_of_errors_ejects_once_there_are_enough_calls() -> None:
    few, many = Seen(9, 8, 1, 0.1), Seen(20, 11, 1, 0.1)
    assert judge(SETTINGS, few, IN, PEERS, 0, 5, NOW).action is Action.KEEP
    assert judge(SETTINGS, many, IN, PEERS, 0, 5, NOW).action is Action.EJECT


def test_much_slower_answers_than_those_of_the_peers_eject_but_not_of_a_single_peer() -> None:
    slow = replace(GOOD, response_s=0.9)
    assert judge(SETTINGS, slow, IN, PEERS, 0, 4, NOW).action is Action.EJECT
    assert judge(SETTINGS, slow, IN, PEERS[:1], 0, 2, NOW).action is Action.KEEP
    assert judge(SETTINGS, replace(slow, response_s=0.7), IN, PEERS, 0, 4, NOW).action is Action.KEEP


def test_an_ejection_doubles_with_each_fault_on_trial_up_to_its_ceiling() -> None:
    standing, lengths = IN, []
    for _ in range(9):
        now = standing.until or NOW
        standing = judge(SETTINGS, BAD, standing, PEERS, 0, 5, now).standing
        assert standing.until is not None
        lengths.append(standing.until - now)
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_good_answers_on_trial_readmit_and_one_is_not_enough() -> None:
    out = Standing(NOW - 1, 2)
    assert judge(SETTINGS, Seen(1, 0, 0, 0.1), out, PEERS, 1, 5, NOW).action is Action.KEEP
    verdict = judge(SETTINGS, Seen(2, 0, 0, 0.1), out, PEERS, 1, 5, NOW)
    assert (verdict.action, verdict.standing) == (Action.READMIT, Standing(None, 2, NOW))


def test_slow_answers_on_trial_do_not_readmit() -> None:
    assert judge(SETTINGS, Seen(2, 0, 0, 5.0), Standing(NOW, 1), PEERS, 1, 5, NOW).action is Action.EJECT


def test_trouble_that_comes_back_soon_is_the_same_and_later_is_new() -> None:
    soon, later = Standing(None, 3, NOW - 30), Standing(None, 3, NOW - 50)  # the third ejection took 20 s
    assert judge(SETTINGS, BAD, soon, PEERS, 0, 5, NOW).standing.until == NOW + 40
    assert judge(SETTINGS, BAD, later, PEERS, 0, 5, NOW).standing.until == NOW + 5


def test_faults_in_panic_do_not_lengthen_an_ejection_that_still_runs() -> None:
    """With nobody else left ejected replicas serve, and every failure would double the time."""
    out = Standing(NOW + 3, 2)
    assert judge(SETTINGS, BAD, out, PEERS, 5, 5, NOW).standing == out
