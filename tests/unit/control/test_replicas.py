"""The set of replicas: who may be picked, what a pick counts and takes back, who is left out and comes back."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ragworks.control.replicas import ANSWERS, Outcome, Pick, ReplicaSet
from ragworks.policies import ejecting
from ragworks.policies.balancing import STRATEGIES, BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.reports import ReplicaReport
from ragworks.types import Health, Life

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


class Kept(list[dict[str, Any]]):
    """A Record that keeps what it is told."""

    def __call__(self, action: str, **told: Any) -> None:
        self.append({"action": action, **told})


def made(
    *ids: str,
    strategy: str = "adaptive",
    record: Any = None,
    slots: int = 4,
    slow_start_s: float = 0.0,
    **ejecting: Any,
) -> ReplicaSet:
    made = ReplicaSet(
        BalanceSettings(strategy, slow_start_s=slow_start_s),
        EjectSettings(**ejecting),
        Random(0),
        record if record is not None else Kept(),
    )
    for one in ids:
        made.add(one, 0.0, slots=slots)
    return made


def picked(replicas: ReplicaSet, now: float = 0.0, **more: Any) -> Pick:
    pick = replicas.pick(now, **more)
    assert pick is not None
    return pick


def served(replicas: ReplicaSet, now: float, took_s: float = 0.1, outcome: Outcome = Outcome.OK) -> str:
    pick = picked(replicas, now)
    pick.release(now + took_s, outcome)
    return pick.replica_id


def fail(replicas: ReplicaSet, replica_id: str, now: float, times: int = 3) -> None:
    """Let calls to one replica fail, whoever else is picked meanwhile."""
    while times:
        pick = picked(replicas, now)
        hit = pick.replica_id == replica_id
        pick.release(now, Outcome.FAILED if hit else Outcome.OK)
        times -= hit


def life(replicas: ReplicaSet, replica_id: str) -> Life:
    return next(view.life for view in replicas.views(0.0) if view.id == replica_id)


@every_strategy
def test_without_replicas_nobody_can_be_picked(strategy) -> None:
    assert made(strategy=strategy).pick(0.0) is None


@every_strategy
def test_a_single_replica_gets_every_call_whatever_its_health(strategy) -> None:
    replicas = made("only", strategy=strategy)
    for health in Health:
        replicas.note_health("only", health, 0.0)
        assert served(replicas, 1.0, outcome=Outcome.FAILED) == "only"
    replicas.drain("only")
    assert replicas.pick(2.0) is None


@every_strategy
def test_the_same_seed_gives_the_same_picks(strategy) -> None:
    runs = []
    for _ in range(2):
        replicas, rng = made(*"abcdef", strategy=strategy), Random(1)
        runs.append([served(replicas, float(turn), rng.random()) for turn in range(200)])
    assert runs[0] == runs[1]


@every_strategy
def test_of_equal_replicas_none_starves_and_none_herds(strategy) -> None:
    replicas, flight, counts = made(*"abcde", strategy=strategy), [], Counter()
    for turn in range(1000):
        pick = picked(replicas, turn * 0.1)
        counts[pick.replica_id] += 1
        flight.append(pick)
        if len(flight) > 5:
            flight.pop(0).release(turn * 0.1, Outcome.OK)
    # Each expects 200. Random choice has the widest spread: five standard deviations of it are 63.
    assert len(counts) == 5
    assert all(abs(count - 200) <= 64 for count in counts.values()), counts


@every_strategy
def test_calls_in_flight_go_up_and_down_and_end_at_zero(strategy) -> None:
    replicas = made("a", "b", strategy=strategy)
    picks = [picked(replicas, 0.0) for _ in range(20)]
    assert sum(view.active_connections for view in replicas.views(0.0)) == 20
    for outcome, pick in zip(list(Outcome) * 7, picks, strict=False):
        pick.release(1.0, outcome)
        pick.release(2.0, Outcome.FAILED)
    assert [view.active_connections for view in replicas.views(2.0)] == [0, 0]


def test_a_second_release_is_harmless() -> None:
    replicas = made("a")
    pick, other = picked(replicas), picked(replicas)
    for _ in range(5):
        pick.release(1.0, Outcome.OK)
    assert replicas.views(1.0)[0].active_connections == 1
    other.release(1.0, Outcome.OK)


def test_a_pick_of_a_replica_that_was_removed_may_be_released() -> None:
    replicas = made("a", "b")
    picks = [picked(replicas) for _ in range(6)]
    replicas.remove("a")
    for pick in picks:
        pick.release(1.0, Outcome.FAILED)
    assert [view.id for view in replicas.views(1.0)] == ["b"]
    replicas.remove("a")
    replicas.drain("a")


def test_an_id_cannot_be_added_twice() -> None:
    replicas = made("a")
    with pytest.raises(ValueError, match="there is a replica a already"):
        replicas.add("a", 0.0)


@every_strategy
def test_who_drains_or_was_tried_is_not_picked(strategy) -> None:
    replicas = made("a", "b", "c", strategy=strategy)
    replicas.drain("a")
    assert {picked(replicas, tried=["b"]).replica_id for _ in range(50)} == {"c"}
    assert replicas.pick(0.0, tried=["b", "c"]) is None


@every_strategy
def test_the_unhealthy_serve_only_when_nobody_else_is_left_and_the_pick_says_so(strategy) -> None:
    replicas = made("a", "b", strategy=strategy)
    replicas.note_health("a", Health.UNHEALTHY, 0.0)
    assert {served(replicas, 1.0) for _ in range(50)} == {"b"}
    replicas.note_health("b", Health.UNHEALTHY, 0.0)
    pick = picked(replicas, 1.0)
    assert pick.reason == "panic: only unhealthy replicas are left"
    pick.release(1.1, Outcome.OK)
    assert {served(replicas, 1.0) for _ in range(100)} == {"a", "b"}


@every_strategy
def test_a_degraded_replica_gets_less_traffic_not_none(strategy) -> None:
    replicas = made("well", "ill", strategy=strategy)
    replicas.note_health("ill", Health.DEGRADED, 0.0)
    counts = Counter(served(replicas, float(turn)) for turn in range(1000))
    # It may be chosen in a quarter of the picks at most: 250, and five standard deviations are 69.
    assert 20 <= counts["ill"] <= 319


def test_a_retry_finds_a_degraded_replica_when_the_healthy_one_was_tried() -> None:
    replicas = made("well", "ill")
    replicas.note_health("ill", Health.DEGRADED, 0.0)
    assert {picked(replicas, tried=["well"]).replica_id for _ in range(50)} == {"ill"}


def test_when_all_are_degraded_all_serve_as_if_they_were_healthy() -> None:
    replicas = made("a", "b", strategy="round_robin")
    for one in "ab":
        replicas.note_health(one, Health.DEGRADED, 0.0)
    assert [served(replicas, float(turn)) for turn in range(4)] == ["a", "b", "a", "b"]


@every_strategy
def test_a_new_replica_starts_slowly_and_does_not_draw_everything(strategy) -> None:
    replicas = made("a", "b", "c", strategy=strategy, slow_start_s=10.0)
    for turn in range(300):
        served(replicas, turn * 0.1, 0.001)
    replicas.add("new", 30.0, slots=4)
    first = Counter(served(replicas, 30.0 + turn * 0.002, 0.001) for turn in range(400))
    # A tenth of the picks may go to it: 40 at most, five standard deviations more are 30.
    assert first["new"] <= 70
    later = Counter(served(replicas, 60.0 + turn * 0.1, 0.001) for turn in range(400))
    assert 30 <= later["new"] <= 250


def test_a_new_replica_is_taken_to_be_as_fast_as_the_others() -> None:
    replicas = made("a", "b", "c")
    replicas.add("new", 0.0)
    assert len({view.pace for view in replicas.views(0.0)}) == 1


@every_strategy
def test_a_replica_that_fails_fast_is_ejected_and_does_not_become_the_favourite(strategy) -> None:
    kept = Kept()
    replicas = made(*"abc", strategy=strategy, record=kept)
    failed = 0
    for turn in range(1000):
        now = turn * 0.01
        pick = picked(replicas, now)
        failed += pick.replica_id == "a"
        pick.release(
            now + (0.001 if pick.replica_id == "a" else 0.1), Outcome.FAILED if pick.replica_id == "a" else Outcome.OK
        )
    # Three failures, then one trial after 5 s: the run lasts 10.
    assert failed <= 4
    assert life(replicas, "a") is Life.EJECTED
    assert [one["action"] for one in kept][:1] == ["ejected"]


def test_an_ejected_replica_is_tried_by_one_call_at_a_time_and_let_in_after_good_answers() -> None:
    kept = Kept()
    replicas = made(*"abc", record=kept)
    fail(replicas, "a", 1.0)
    assert {served(replicas, 5.9) for _ in range(50)} == {"b", "c"}
    trial = picked(replicas, 6.1)
    assert (trial.replica_id, trial.reason) == ("a", "trial of an ejected replica")
    assert {picked(replicas, 6.1).replica_id for _ in range(10)} == {"b", "c"}
    trial.release(6.2, Outcome.OK)
    assert life(replicas, "a") is Life.EJECTED
    served(replicas, 6.3)
    assert life(replicas, "a") is Life.READY
    assert [one["action"] for one in kept] == ["ejected", "readmitted"]


def test_a_retry_is_never_a_trial() -> None:
    replicas = made(*"abc")
    fail(replicas, "a", 1.0)
    assert picked(replicas, 100.0, tried=["b"]).replica_id == "c"


def test_a_cancelled_trial_says_nothing_and_the_next_call_is_one() -> None:
    replicas = made(*"abc")
    fail(replicas, "a", 1.0)
    picked(replicas, 7.0).release(7.1, Outcome.CANCELLED)
    assert picked(replicas, 7.2).replica_id == "a"


def test_calls_that_were_in_flight_when_it_was_ejected_do_not_let_it_in() -> None:
    replicas = made(*"abc", strategy="round_robin")
    before = [picked(replicas, 0.5) for _ in range(9)]
    fail(replicas, "a", 1.0)
    for pick in before:
        pick.release(1.5, Outcome.OK)
    assert life(replicas, "a") is Life.EJECTED


def test_when_all_fail_the_last_stays_and_those_that_are_out_serve_in_panic() -> None:
    replicas = made(*"abcd", strategy="round_robin")
    for turn in range(400):
        served(replicas, turn * 0.01, outcome=Outcome.FAILED)
    lives = Counter(view.life for view in replicas.views(4.0))
    assert lives[Life.EJECTED] == 2
    for view in replicas.views(4.0):
        if view.life is Life.READY:
            replicas.drain(view.id)
    assert picked(replicas, 4.0).reason == "panic: only ejected replicas are left"


def test_good_answers_in_panic_let_an_ejected_replica_in_before_its_time() -> None:
    replicas = made("a", "b")
    fail(replicas, "a", 1.0)
    replicas.remove("b")
    for turn in range(2):
        served(replicas, 1.1 + turn * 0.1, 0.05)
    assert life(replicas, "a") is Life.READY


def test_a_replica_much_slower_than_its_peers_is_ejected_by_its_latency() -> None:
    kept = Kept()
    replicas = made(*"abcd", strategy="round_robin", record=kept)
    for turn in range(200):
        now = turn * 0.1
        pick = picked(replicas, now)
        pick.release(now + (2.0 if pick.replica_id == "b" else 0.1), Outcome.OK)
    assert kept[0]["replica"] == "b"
    assert "2 s an answer where its peers take 0.1 s" in kept[0]["reason"]


def test_every_ejection_and_readmission_can_be_asked_again_with_its_recorded_inputs() -> None:
    kept = Kept()
    replicas = made(*"abc", record=kept)
    rng = Random(3)
    for turn in range(3000):
        served(replicas, turn * 0.05, 0.01, Outcome.FAILED if rng.random() < 0.4 else Outcome.OK)
    assert {one["action"] for one in kept} == {"ejected", "readmitted"}
    for one in kept:
        assert one["policy"] == "ejecting.judge"
        assert ejecting.judge(**one["inputs"]) == one["decision"]
        assert one["reason"] == one["decision"].reason


def test_nobody_is_ejected_where_no_share_may_be() -> None:
    kept = Kept()
    replicas = made(*"abc", record=kept, max_ejected_share=0.0)
    for turn in range(100):
        served(replicas, float(turn), outcome=Outcome.FAILED)
    assert kept == []


def test_adaptive_learns_who_is_slow_and_forgets_when_it_recovers() -> None:
    replicas = made(*"abcd", slots=1)

    def share(begin: int, slow: float) -> float:
        """Of 500 calls that end before the next comes, those that went to ``a``, ``slow`` times slower."""
        counts = Counter()
        for turn in range(begin, begin + 500):
            pick = picked(replicas, float(turn), cost=100.0)
            pick.release(turn + 0.1 * (slow if pick.replica_id == "a" else 1.0), Outcome.OK)
            counts[pick.replica_id] += 1
        return counts["a"] / 500

    share(0, 1.0)
    assert share(500, 5.0) < 0.05
    share(1000, 1.0)
    share(1500, 1.0)
    assert share(2000, 1.0) > 0.1


def test_a_replica_that_hung_gets_its_share_again_soon_after_it_goes_on() -> None:
    """Its late answers make it seem hundreds of times slower."""
    replicas = made(*"abcd", slots=8)
    for turn in range(200):
        served(replicas, float(turn))
    hung = [pick for pick in (picked(replicas, 200.0) for _ in range(40)) if pick.replica_id == "a"]
    for pick in hung:
        pick.release(260.0, Outcome.OK)
    assert max(view.pace for view in replicas.views(260.0)) > 50
    for turn in range(400):
        served(replicas, 300.0 + turn)
    after = Counter(served(replicas, 1000.0 + turn) for turn in range(400))
    # A quarter is 100; five standard deviations of a binomial count are 43.
    assert after["a"] > 57


def test_adaptive_sends_a_long_call_where_a_short_one_is_ahead() -> None:
    replicas = made("a", "b", slots=1)
    for turn in range(200):
        pick = picked(replicas, float(turn), cost=100.0 + turn)
        pick.release(turn + 0.01 * (100.0 + turn) / 100.0, Outcome.OK)
    long = picked(replicas, 300.0, cost=5000.0)
    short = picked(replicas, 300.0, cost=100.0)
    assert short.replica_id != long.replica_id
    assert picked(replicas, 300.0, cost=200.0).replica_id == short.replica_id


def test_a_call_that_timed_out_teaches_that_the_replica_is_slow() -> None:
    replicas = made("a", "b", max_ejected_share=0.0)
    for turn in range(50):
        served(replicas, float(turn))
    slow = picked(replicas, 100.0)
    slow.release(130.0, Outcome.CANCELLED)
    paces = {view.id: view.pace for view in replicas.views(130.0)}
    assert paces[slow.replica_id] > 1.5 * min(paces.values())


def test_views_show_what_was_measured_and_told() -> None:
    replicas = made("a")
    assert replicas.views(0.0)[0].avg_response_time is None
    served(replicas, 0.0, 0.2)
    served(replicas, 1.0, 0.2, Outcome.FAILED)
    replicas.note_usage("a", 50.0, 20.0)
    replicas.note_usage("nobody", 50.0, 20.0)
    view = replicas.views(2.0)[0]
    assert (view.avg_response_time, view.cpu_usage, view.memory_usage) == (pytest.approx(0.2), 50.0, 20.0)
    assert view.error_rate == pytest.approx(0.5, abs=0.05)
    assert (view.life, view.health, view.slots) == (Life.READY, Health.HEALTHY, 4)


def test_quantiles_are_of_the_last_good_answers_and_forgotten_with_an_ejection() -> None:
    replicas = made("a")
    for turn in range(50):
        served(replicas, float(turn), 9.0)
    for turn in range(ANSWERS):
        served(replicas, 100.0 + turn, 2.0 if turn % 10 == 0 else 0.5)
    served(replicas, 900.0, 60.0, Outcome.FAILED)
    (view,) = replicas.views(1000.0)
    assert (view.p50_response_time, view.p95_response_time) == pytest.approx((0.5, 2.0))
    replicas.add("b", 1000.0)
    fail(replicas, "a", 1000.0, times=2)
    assert life(replicas, "a") is Life.EJECTED
    view = replicas.views(1000.0)[0]
    assert (view.avg_response_time, view.p50_response_time, view.p95_response_time) == (None, None, None)


def test_a_report_has_all_that_is_known_of_the_calls_to_its_replica() -> None:
    replicas = made("a", slots=1)
    served(replicas, 0.0, 0.2)
    replicas.note_usage("a", 50.0, 20.0)
    for now in (1.0, 2.0, 3.0):
        picked(replicas, now)
    report = replicas.views(5.0)[0].measured(ReplicaReport("a", 7, "healthy", "1", note="kept"))
    took = pytest.approx(0.2)
    assert report == ReplicaReport(
        "a",
        7,
        "healthy",
        "1",
        active_connections=3,
        avg_response_time=took,
        p50_response_time=took,
        p95_response_time=took,
        queue_size=2,
        queue_age_s=3.0,
        error_rate=0.0,
        cpu_usage=50.0,
        memory_usage=20.0,
        note="kept",
    )


class AnySequenceOfEvents(RuleBasedStateMachine):
    """Replicas come, go, drain, fail, and change health while calls begin and end in any order."""

    @initialize(strategy=st.sampled_from(sorted(STRATEGIES)), seed=st.integers(0, 100))
    def begin(self, strategy: str, seed: int) -> None:
        self.kept = Kept()
        self.replicas = ReplicaSet(BalanceSettings(strategy), EjectSettings(), Random(seed), self.kept)
        self.now, self.added = 0.0, 0
        self.here: dict[str, Health] = {}
        self.drained: set[str] = set()
        self.out: list[Pick] = []

    @rule(slots=st.integers(1, 4))
    def add(self, slots: int) -> None:
        self.added += 1
        self.replicas.add(f"r{self.added}", self.now, slots=slots)
        self.here[f"r{self.added}"] = Health.HEALTHY

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        if self.here:
            one = data.draw(st.sampled_from(sorted(self.here)))
            self.replicas.drain(one)
            self.drained.add(one)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.here:
            one = data.draw(st.sampled_from(sorted(self.here)))
            self.replicas.remove(one)
            del self.here[one]
            self.drained.discard(one)

    @rule(data=st.data(), health=st.sampled_from(Health))
    def note_health(self, data: st.DataObject, health: Health) -> None:
        if self.here:
            one = data.draw(st.sampled_from(sorted(self.here)))
            self.replicas.note_health(one, health, self.now)
            self.here[one] = health

    @rule(data=st.data(), failures=st.floats(0, 5))
    def note_failures(self, data: st.DataObject, failures: float) -> None:
        one = data.draw(st.sampled_from([*self.here, "nobody"]))
        self.replicas.note_failures(one, failures, self.now)

    @rule(data=st.data(), cost=st.none() | st.floats(0, 1e5), times=st.integers(1, 8))
    def pick(self, data: st.DataObject, cost: float | None, times: int) -> None:
        tried = data.draw(st.sets(st.sampled_from(sorted(self.here)))) if self.here else set()
        for _ in range(times):
            open_to = set(self.here) - self.drained - tried
            pick = self.replicas.pick(self.now, cost=cost, tried=tried)
            assert (pick is None) == (not open_to)
            if pick is None:
                return
            assert pick.replica_id in open_to
            assert pick.reason
            if any(self.here[one] is not Health.UNHEALTHY for one in open_to):
                assert self.here[pick.replica_id] is not Health.UNHEALTHY
            self.out.append(pick)

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), times=st.integers(1, 8))
    def release(self, data: st.DataObject, outcome: Outcome, times: int) -> None:
        for _ in range(min(times, len(self.out))):
            place = data.draw(st.integers(0, len(self.out) - 1))
            pick = self.out.pop(place)
            pick.release(self.now, outcome)
            pick.release(self.now, Outcome.FAILED)

    @invariant()
    def every_pick_that_is_out_is_counted_once(self) -> None:
        out = Counter(pick.replica_id for pick in self.out)
        views = self.replicas.views(self.now)
        assert [view.id for view in views] == list(self.here)
        assert all(view.active_connections == out[view.id] for view in views)
        assert all(0 <= view.error_rate <= 1 and math.isfinite(view.pace) for view in views)

    @invariant()
    def somebody_is_left_in_rotation_and_decisions_can_be_asked_again(self) -> None:
        for one in self.kept:
            assert ejecting.judge(**one["inputs"]) == one["decision"]
            if one["action"] == "ejected" and one["inputs"]["standing"].until is None:
                assert one["inputs"]["out"] + 1 < one["inputs"]["replicas"] or one["inputs"]["replicas"] == 2
        self.kept.clear()


AnySequenceOfEvents.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnySequenceOfEvents = AnySequenceOfEvents.TestCase


def test_the_time_of_each_good_answer_is_told_and_of_no_other():
    took: list[float] = []
    replicas = ReplicaSet(BalanceSettings(), EjectSettings(), Random(0), observe=took.append)
    replicas.add("a", 0.0)
    for outcome, seconds in ((Outcome.OK, 0.5), (Outcome.FAILED, 2.0), (Outcome.CANCELLED, 3.0), (Outcome.OK, 0.25)):
        served(replicas, 10.0, seconds, outcome)
    assert took == [0.5, 0.25]


# a free replica takes over what waits elsewhere


def queued(count: int = 6, *, slots: int = 1) -> tuple[ReplicaSet, list[Pick], list[Pick]]:
    """One replica with calls of 1 s, of which all may be moved; the picks, and those that took the place of one."""
    replicas = made("a", slots=slots)
    served(replicas, 0.0, 1.0)
    moved: list[Pick] = []
    picks = [picked(replicas, 1.0) for _ in range(count)]
    for pick in picks:
        pick.on_moved = moved.append
    return replicas, picks, moved


def active(replicas: ReplicaSet) -> dict[str, int]:
    return {view.id: view.active_connections for view in replicas.views(1.0)}


def test_a_replica_that_comes_takes_over_the_newest_call_that_waits() -> None:
    replicas, picks, moved = queued()
    replicas.add("b", 1.0)
    assert replicas.steal("b", 1.0) == "it would have waited 5 s more at a"
    assert active(replicas) == {"a": 5, "b": 1}
    assert [one.replica_id for one in moved] == ["b"]
    picks[-1].release(1.0, Outcome.CANCELLED)
    assert active(replicas) == {"a": 5, "b": 1}, "the pick that was moved counts no longer"
    assert replicas.steal("b", 1.0) is None, "its only slot is taken"
    moved[0].release(2.0, Outcome.OK)
    assert active(replicas) == {"a": 5, "b": 0}


def test_a_call_is_moved_once_at_most() -> None:
    replicas, _, moved = queued(2)
    replicas.add("b", 1.0)
    replicas.add("c", 1.0)
    assert replicas.steal("b", 1.0)
    assert replicas.steal("c", 1.0) is None
    assert len(moved) == 1


def test_a_call_that_must_stay_is_not_moved() -> None:
    replicas, picks, _ = queued(3)
    for pick in picks:
        pick.on_moved = None
    replicas.add("b", 1.0)
    assert replicas.steal("b", 1.0) is None


def test_a_call_in_a_slot_is_not_moved() -> None:
    replicas, _, _ = queued(4, slots=4)
    replicas.add("b", 1.0)
    assert replicas.steal("b", 1.0) is None


def test_who_is_not_well_takes_over_nothing() -> None:
    for health in (Health.DEGRADED, Health.UNHEALTHY):
        replicas, _, _ = queued()
        replicas.add("b", 1.0)
        replicas.note_health("b", health, 1.0)
        assert replicas.steal("b", 1.0) is None
    replicas.drain("b")
    assert replicas.steal("b", 1.0) is None
    assert replicas.steal("gone", 1.0) is None


def test_who_fails_fast_takes_over_nothing() -> None:
    """It is always free, and would draw every call that waits."""
    replicas, _, _ = queued()
    replicas.add("b", 1.0)
    picked(replicas, 1.0, tried={"a"}).release(1.01, Outcome.FAILED)
    assert replicas.steal("b", 1.0) is None


def test_the_calls_of_one_that_drains_or_is_ill_are_taken_over() -> None:
    replicas, _, _ = queued()
    replicas.add("b", 1.0, slots=2)
    replicas.drain("a")
    assert replicas.steal("b", 1.0)
    replicas.note_health("a", Health.UNHEALTHY, 1.0)
    assert replicas.steal("b", 1.0)


def test_moving_a_call_says_nothing_of_how_fast_its_replica_is() -> None:
    replicas, _, _ = queued()
    before = replicas.views(1.0)[0].pace
    replicas.add("b", 1.0)
    replicas.steal("b", 3.0)
    assert replicas.views(3.0)[0].pace == before


def test_what_calls_take_by_cost_is_unknown_until_calls_of_different_cost_have_ended() -> None:
    replicas = ReplicaSet(BalanceSettings(slow_start_s=0.0), EjectSettings(), Random(1))
    replicas.add("a", 0.0)
    assert (replicas.service_time_s, replicas.unit_time_s) == (None, None)
    now = 0.0
    for cost in (100.0, 300.0):
        pick = replicas.pick(now, cost=cost)
        assert pick
        now += 1.0 + cost / 100.0
        pick.release(now, Outcome.OK)
        if cost == 100.0:
            assert (replicas.service_time_s, replicas.unit_time_s) == (2.0, None)
    assert replicas.service_time_s is not None
    assert 2.0 < replicas.service_time_s < 4.0
    assert replicas.unit_time_s is not None
    assert replicas.unit_time_s > 0.0


def test_what_a_call_takes_is_told_in_seconds_also_when_it_gets_slower() -> None:
    """With one replica, pace and expectation share what is learnt; either alone is of no unit."""
    replicas, now = made("a"), 0.0
    for took_s in (*([0.01] * 20), *([1.0] * 400)):
        served(replicas, now, took_s)
        now += took_s
    assert replicas.service_time_s == pytest.approx(1.0, rel=0.1)
