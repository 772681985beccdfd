"""Hysteresis: what changes a replica's health, and what does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragworks.policies.health import (
    BADNESS,
    HealthSettings,
    HealthState,
    Judgement,
    MachineSeen,
    MachineSettings,
    Seen,
    Signal,
    judge,
    machine_signals,
    queue_signal,
    worst,
)
from ragworks.types import Health

SETTINGS = HealthSettings()
WELL = Seen(answered=True, said=Health.HEALTHY, probe_s=0.01)
SLOW = replace(WELL, probe_s=1.5)
DEAD = Seen(answered=False, detail="no answer within 2 s")

healths = st.sampled_from(list(Health))
counts = st.integers(1, 5)
rounds = st.lists(healths, max_size=60)


@st.composite
def seen(draw: st.DrawFn) -> Seen:
    """What a round may find, at its oddest."""
    calls = draw(st.integers(0, 100))
    return Seen(
        answered=draw(st.sampled_from((None, True, False))),
        said=draw(st.none() | healths),
        probe_s=draw(st.none() | st.floats(0, 10)),
        meanwhile=draw(st.integers(0, 3)),
        calls=calls,
        failed=draw(st.integers(0, calls)),
        response_s=draw(st.none() | st.floats(0, 100)),
        peers_response_s=tuple(draw(st.lists(st.floats(0.001, 100), max_size=4))),
        memory_percent=draw(st.none() | st.floats(0, 200)),
    )


def said(health: Health) -> Seen:
    return replace(WELL, said=health)


def after(settings: HealthSettings, *found: Seen, every_s: float = 1.0) -> list[Judgement]:
    """The judgements of these rounds, one after the other."""
    judgements, state = [], HealthState()
    for place, one in enumerate(found):
        judgements.append(judge(settings, state, one, (place + 1) * every_s))
        state = judgements[-1].state
    return judgements


def test_nothing_known_is_healthy_and_says_so() -> None:
    judgement = judge(SETTINGS, HealthState(), Seen(), 0.0)
    assert (judgement.health, judgement.give_up, judgement.reason) == (Health.HEALTHY, False, "nothing was found out")


@given(st.lists(seen(), max_size=20), healths)
def test_missing_data_changes_nothing(found: list[Seen], health: Health) -> None:
    state = HealthState(health)
    for one in found:
        state = judge(SETTINGS, state, one, 1.0).state
    assert judge(SETTINGS, state, Seen(), 1e9).state == state


@given(counts, counts, rounds)
def test_a_change_needs_as_many_rounds_in_a_row_as_the_settings_say(down: int, up: int, found: list[Health]) -> None:
    """Worse only after ``down`` rounds that were all worse, better only after ``up`` that were all better."""
    settings = HealthSettings(down_after=down, up_after=up)
    before = Health.HEALTHY
    for place, judgement in enumerate(after(settings, *map(said, found))):
        was, now = BADNESS[before], BADNESS[judgement.health]
        if now > was:
            assert all(BADNESS[one] >= now for one in found[place + 1 - down : place + 1])
            assert place + 1 >= down
        if now < was:
            assert all(BADNESS[one] <= now for one in found[place + 1 - up : place + 1])
            assert place + 1 >= up
        before = judgement.health


@given(counts, counts, healths, healths)
def test_it_follows_what_lasts(down: int, up: int, first: Health, then: Health) -> None:
    """However it was, as many rounds of one kind as the settings ask bring it there: hysteresis only delays."""
    settings = HealthSettings(down_after=down, up_after=up)
    found = [said(first)] * 10 + [said(then)] * max(down, up)
    assert after(settings, *found)[-1].health is then


@given(st.integers(2, 5), st.integers(2, 5), healths, healths, st.integers(2, 40))
def test_input_that_swings_each_round_changes_nothing(
    down: int, up: int, one: Health, other: Health, turns: int
) -> None:
    assume(one is not other)
    better = min((one, other), key=BADNESS.__getitem__)
    settings = HealthSettings(down_after=down, up_after=up)
    settled = [said(better)] * 5
    swinging = [said(one if turn % 2 else other) for turn in range(turns)]
    judgements = after(settings, *settled, *swinging)[5:]
    assert {judgement.health for judgement in judgements} == {judgements[0].health}


@given(rounds)
def test_it_turns_no_faster_than_the_hysteresis(found: list[Health]) -> None:
    """Down and up again takes at least ``up_after`` rounds, so no input makes it flap faster."""
    healths = [Health.HEALTHY, *(judgement.health for judgement in after(SETTINGS, *map(said, found)))]
    turns = [
        (place, BADNESS[now] > BADNESS[was]) for place, (was, now) in enumerate(pairwise(healths)) if now is not was
    ]
    for (earlier, down), (later, down_again) in pairwise(turns):
        if down != down_again:
            assert later - earlier >= (SETTINGS.up_after if down else SETTINGS.down_after)


@given(st.lists(st.tuples(healths, healths), max_size=40), counts, counts)
def test_worse_rounds_never_make_it_better(pairs: list[tuple[Health, Health]], down: int, up: int) -> None:
    settings = HealthSettings(down_after=down, up_after=up)
    worse = [max(pair, key=BADNESS.__getitem__) for pair in pairs]
    better = [min(pair, key=BADNESS.__getitem__) for pair in pairs]
    for bad, good in zip(after(settings, *map(said, worse)), after(settings, *map(said, better)), strict=True):
        assert BADNESS[bad.health] >= BADNESS[good.health]


@given(seen(), healths, st.integers(0, 5))
def test_every_judgement_has_a_reason_and_the_health_of_its_state(one: Seen, health: Health, missed: int) -> None:
    judgement = judge(SETTINGS, HealthState(health, (health,) * 3, missed), one, 5.0)
    assert judgement.reason
    assert judgement.health is judgement.state.health
    assert not judgement.give_up or judgement.health is Health.UNHEALTHY


@pytest.mark.parametrize(
    ("one", "expected", "reason"),
    [
        (WELL, Health.HEALTHY, "the probe was answered"),
        (Seen(calls=3), Health.HEALTHY, "calls are answered"),
        (DEAD, Health.UNHEALTHY, "the probe got no answer: no answer within 2 s"),
        (replace(DEAD, meanwhile=1), Health.DEGRADED, "the probe got no answer: no answer within 2 s"),
        (replace(DEAD, calls=50, failed=1), Health.UNHEALTHY, "the probe got no answer: no answer within 2 s"),
        (SLOW, Health.DEGRADED, "the probe took 1.5 s, more than 1 s"),
        (replace(WELL, calls=10, failed=3), Health.DEGRADED, "3 of 10 calls failed"),
        (replace(WELL, calls=10, failed=2), Health.HEALTHY, "the probe was answered"),
        (replace(WELL, calls=9, failed=9), Health.HEALTHY, "the probe was answered"),
        (
            replace(WELL, calls=10, response_s=0.6, peers_response_s=(0.1, 0.1)),
            Health.DEGRADED,
            "0.6 s an answer where its peers take 0.1 s",
        ),
        (replace(WELL, calls=10, response_s=9.0, peers_response_s=(0.1,)), Health.HEALTHY, "the probe was answered"),
        (replace(WELL, calls=10, response_s=9.0), Health.HEALTHY, "the probe was answered"),
        (replace(WELL, memory_percent=95.0), Health.DEGRADED, "it uses 95 % of the memory it may use"),
        (replace(SLOW, memory_percent=101.0), Health.UNHEALTHY, "it uses 101 % of the memory it may use"),
        (replace(said(Health.DEGRADED), detail="why"), Health.DEGRADED, "it says that it is degraded: why"),
    ],
)
def test_what_one_round_says(one: Seen, expected: Health, reason: str) -> None:
    at_once = HealthSettings(down_after=1, up_after=1)
    judgement = judge(at_once, HealthState(), one, 0.0)
    assert (judgement.health, judgement.reason) == (expected, reason)


def test_a_replica_whose_probes_time_out_is_given_up_at_the_third() -> None:
    assert [judgement.give_up for judgement in after(SETTINGS, *[DEAD] * 6)] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_a_replica_that_is_replaced_by_nobody_is_given_up_each_minute() -> None:
    told = [place for place, one in enumerate(after(SETTINGS, *[DEAD] * 200)) if one.give_up]
    assert told == [2, 62, 122, 182]


def test_a_replica_that_answers_that_it_is_unhealthy_is_given_up_a_minute_after_it_became_so() -> None:
    told = [place for place, one in enumerate(after(SETTINGS, *[said(Health.UNHEALTHY)] * 100)) if one.give_up]
    assert told == [61]


def test_a_replica_that_was_well_in_between_has_its_time_again() -> None:
    found = [DEAD, DEAD, WELL, DEAD, DEAD, WELL, DEAD, DEAD]
    assert not any(judgement.give_up for judgement in after(SETTINGS, *found))


def test_the_mildest_of_the_bad_rounds_is_what_it_becomes() -> None:
    """A slow probe and then a lost one prove that it is not well, not that it is dead."""
    assert [judgement.health for judgement in after(SETTINGS, SLOW, DEAD, DEAD)] == [
        Health.HEALTHY,
        Health.DEGRADED,
        Health.UNHEALTHY,
    ]


MIB, GIB = 1024**2, 1024**3
LIMITS = MachineSettings()


def test_nothing_known_of_the_machine_is_no_complaint() -> None:
    assert machine_signals(LIMITS, MachineSeen()) == ()
    assert worst(()) == Signal(Health.HEALTHY, "")


@pytest.mark.parametrize(
    ("seen", "health", "words"),
    [
        (MachineSeen(loop_lag_s=0.05), Health.HEALTHY, ""),
        (MachineSeen(loop_lag_s=0.2), Health.DEGRADED, "0.2 s late"),
        (MachineSeen(loop_lag_s=1.5), Health.UNHEALTHY, "1.5 s late"),
        (MachineSeen(disk_free_bytes=3 * GIB, disk_total_bytes=1000 * GIB), Health.HEALTHY, ""),
        (MachineSeen(disk_free_bytes=1 * GIB, disk_total_bytes=1000 * GIB), Health.DEGRADED, "1024 MiB of 1024000 MiB"),
        (MachineSeen(disk_free_bytes=50 * MIB, disk_total_bytes=200 * MIB), Health.HEALTHY, ""),
        (MachineSeen(disk_free_bytes=10 * MIB, disk_total_bytes=200 * MIB), Health.DEGRADED, "10 MiB of 200 MiB"),
        (MachineSeen(disk_free_bytes=0, disk_total_bytes=200 * MIB), Health.DEGRADED, "0 MiB of 200 MiB"),
        (MachineSeen(memory_available_bytes=GIB, memory_total_bytes=8 * GIB), Health.HEALTHY, ""),
        (
            MachineSeen(memory_available_bytes=300 * MIB, memory_total_bytes=8 * GIB, own_memory_bytes=2 * GIB),
            Health.DEGRADED,
            "300 MiB of 8192 MiB of memory are available; this server takes 2048 MiB",
        ),
    ],
)
def test_what_the_machine_has_too_little_of(seen: MachineSeen, health: Health, words: str) -> None:
    found = worst(machine_signals(LIMITS, seen))
    assert found.health is health
    assert words in found.reason


def test_several_complaints_are_as_bad_as_the_worst_and_all_told() -> None:
    found = worst(machine_signals(LIMITS, MachineSeen(loop_lag_s=2.0, disk_free_bytes=0, disk_total_bytes=GIB)))
    assert found.health is Health.UNHEALTHY
    assert "late" in found.reason
    assert "disk" in found.reason


@given(st.floats(0, 5), st.floats(0, 5))
def test_more_lag_is_never_better(one: float, other: float) -> None:
    less, more = (worst(machine_signals(LIMITS, MachineSeen(loop_lag_s=lag))) for lag in sorted((one, other)))
    assert BADNESS[more.health] >= BADNESS[less.health]


@pytest.mark.parametrize(
    ("waiting", "oldest_s", "quiet_s", "stuck"),
    [(0, 0.0, 9999.0, False), (500, 5000.0, 3.0, False), (500, 30.0, 9999.0, False), (1, 700.0, 700.0, True)],
)
def test_a_queue_is_stuck_only_when_nothing_ends(waiting: int, oldest_s: float, quiet_s: float, stuck: bool) -> None:
    """A folder of ten thousand documents waits for hours and is well; so is a queue that was empty all night."""
    assert (queue_signal(LIMITS, waiting, oldest_s, quiet_s) is not None) is stuck
