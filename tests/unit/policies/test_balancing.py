"""Which replica the strategies choose: each as it is described, none starves, none herds."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.balancing import LOOKED_AT, STRATEGIES, Asked
from ragworks.policies.loads import PATIENCE, Load

NOW = 100.0


@st.composite
def loads(draw: st.DrawFn, *, least: int = 1, most: int = 20) -> list[Load]:
    made = []
    for place in range(draw(st.integers(least, most))):
        slots = draw(st.integers(1, 8))
        busy = draw(st.integers(0, slots))
        waiting = draw(st.integers(0, 5)) if busy == slots else 0
        expected_s = draw(st.floats(0.01, 10))
        made.append(
            Load(
                f"r{place}",
                slots=slots,
                active=busy + waiting,
                turn=draw(st.integers(0, 500)),
                response_s=draw(st.none() | st.floats(0.001, 100)),
                cpu_percent=draw(st.none() | st.floats(0, 100)),
                memory_percent=draw(st.none() | st.floats(0, 100)),
                used=draw(st.integers(0, 20)),
                error_rate=draw(st.floats(0, 1)),
                pace=draw(st.floats(0.1, 20)),
                known=draw(st.floats(1, 40)),
                backlog=(busy + waiting) * expected_s,
                serving=busy * expected_s,
                busy=busy,
                since=busy * (NOW - 1.0),
                parts=busy / expected_s,
                parts_since=busy * (NOW - 1.0) / expected_s,
            )
        )
    return made


asked = st.builds(
    Asked, now=st.just(NOW), turn=st.integers(0, 1000), expected_s=st.floats(0, 10), usual_s=st.floats(0, 10)
)


@pytest.mark.parametrize("name", STRATEGIES)
@given(seen=loads(), call=asked, seed=st.integers())
def test_one_of_the_candidates_is_chosen_the_same_for_the_same_seed_and_nothing_is_changed(name, seen, call, seed):
    before = repr(seen)
    chosen = STRATEGIES[name](seen, call, Random(seed))
    assert any(chosen is load for load in seen)
    assert STRATEGIES[name](seen, call, Random(seed)) is chosen
    assert repr(seen) == before


@given(loads(), asked)
def test_round_robin_takes_who_has_waited_longest(seen, call) -> None:
    assert STRATEGIES["round_robin"](seen, call, Random(0)).turn == min(load.turn for load in seen)


@given(loads(), asked)
def test_least_connections_takes_the_fewest_calls_in_flight(seen, call) -> None:
    assert STRATEGIES["least_connections"](seen, call, Random(0)).active == min(load.active for load in seen)


@given(loads(), asked)
def test_response_time_takes_the_lowest_average_times_one_and_a_tenth_a_call(seen, call) -> None:
    fastest = min((load.response_s for load in seen if load.response_s is not None), default=1.0)

    def score(load: Load) -> float:
        return (fastest if load.response_s is None else load.response_s) * (1 + 0.1 * load.active)

    assert score(STRATEGIES["response_time"](seen, call, Random(0))) == min(score(load) for load in seen)


def test_a_replica_without_an_average_draws_one_call_and_not_every_one() -> None:
    """Zero would draw all; the mean of the others none, since the fastest is always faster than that."""
    seen = [Load("fast", response_s=0.1, turn=1), Load("slow", response_s=0.5), Load("new")]
    assert STRATEGIES["response_time"](seen, Asked(NOW), Random(0)).replica_id == "new"
    seen[2].active = 1
    assert STRATEGIES["response_time"](seen, Asked(NOW), Random(0)).replica_id == "fast"


def test_a_replica_that_never_reports_its_usage_is_neither_starved_nor_flooded() -> None:
    seen = [Load("reports", slots=4, cpu_percent=30.0, memory_percent=30.0), Load("silent", slots=4, used=1000)]
    assert STRATEGIES["resource_usage"](seen, Asked(NOW, 1), Random(0)).replica_id == "reports"
    seen[0].turn = 1
    assert STRATEGIES["resource_usage"](seen, Asked(NOW, 2), Random(0)).replica_id == "silent"
    seen[1].active = 1
    assert STRATEGIES["resource_usage"](seen, Asked(NOW, 2), Random(0)).replica_id == "reports"


def test_resource_usage_takes_the_lowest_mean_of_cpu_and_memory() -> None:
    seen = [
        Load("busy", cpu_percent=90, memory_percent=10),
        Load("calm", cpu_percent=40, memory_percent=30),
        Load("full", cpu_percent=10, memory_percent=95),
    ]
    assert STRATEGIES["resource_usage"](seen, Asked(NOW), Random(0)).replica_id == "calm"


def test_resource_usage_does_not_send_everything_to_one_replica_between_two_reports() -> None:
    seen = [Load(str(place), slots=4, cpu_percent=10.0 * place, memory_percent=50) for place in range(4)]
    counts: Counter[str] = Counter()
    for turn in range(1, 41):
        load = STRATEGIES["resource_usage"](seen, Asked(NOW, turn), Random(0))
        load.used += 1
        load.turn = turn
        counts[load.replica_id] += 1
    assert set(counts) == {"0", "1", "2", "3"}
    assert max(counts.values()) <= 15


@given(loads(least=2), asked, st.integers())
def test_p2c_never_takes_the_only_one_with_most_calls_in_flight(seen, call, seed) -> None:
    chosen = STRATEGIES["p2c"](seen, call, Random(seed))
    assert any(load.active >= chosen.active for load in seen if load is not chosen)


def test_p2c_compares_every_pair_as_often_as_any_other() -> None:
    """With all in flight different, the i-th least busy of n is chosen in n - 1 - i of the n (n - 1) / 2 pairs."""
    seen = [Load(str(place), active=place) for place in range(4)]
    rng, draws = Random(0), 6000
    counts = Counter(STRATEGIES["p2c"](seen, Asked(NOW), rng).replica_id for _ in range(draws))
    for place in range(4):
        expected = draws * (3 - place) / 6
        # Five standard deviations of a binomial count are 5 x sqrt(6000 x 1/2 x 1/2) = 194 at most.
        assert abs(counts[str(place)] - expected) < 194


def test_adaptive_prefers_the_faster_replica_until_its_queue_is_longer() -> None:
    fast, slow = Load("fast", pace=1.0), Load("slow", pace=3.0)
    call = Asked(NOW, expected_s=1.0, usual_s=1.0)
    assert STRATEGIES["adaptive"]([fast, slow], call, Random(0)) is fast
    for _ in range(4):
        fast.active += 1
        fast.backlog += 1.0
    fast.busy, fast.serving, fast.since, fast.parts, fast.parts_since = 1, 1.0, NOW, 1.0, NOW
    assert STRATEGIES["adaptive"]([fast, slow], call, Random(0)) is slow


def test_adaptive_avoids_a_replica_that_hangs_before_anything_came_back_from_it() -> None:
    hanging = Load("hanging", slots=8, active=3, busy=3, known=10, backlog=3, serving=3, parts=3, since=3 * 70)
    hanging.parts_since = 3 * 70.0  # three calls of 1 s each, since 30 s ago
    fine = Load("fine", slots=8, active=3, busy=3, known=10, backlog=3, serving=3, parts=3, since=3 * 99.5)
    fine.parts_since = 3 * 99.5
    call = Asked(NOW, expected_s=1.0, usual_s=1.0)
    assert all(STRATEGIES["adaptive"]([hanging, fine], call, Random(seed)) is fine for seed in range(50))


def test_adaptive_spreads_calls_over_near_equals_at_random() -> None:
    """Several balancers that know the same must not all choose the same replica."""
    seen = [Load(str(place), pace=1.0 + 0.01 * place) for place in range(4)]
    call = Asked(NOW, expected_s=1.0, usual_s=1.0)
    counts = Counter(STRATEGIES["adaptive"](seen, call, Random(seed)).replica_id for seed in range(2000))
    # Each expects 500; five standard deviations are 5 x sqrt(2000 x 1/4 x 3/4) = 97.
    assert all(abs(counts[str(place)] - 500) < 97 for place in range(4))


def test_adaptive_looks_again_at_a_slow_replica_with_a_short_call_after_its_patience() -> None:
    fast, slow = Load("fast", turn=1000), Load("slow", pace=50.0, turn=1000 - 2 * PATIENCE)
    short, long = (Asked(NOW, 1001, expected_s, 1.0) for expected_s in (0.5, 2.0))
    assert STRATEGIES["adaptive"]([fast, slow], short, Random(0)) is slow
    assert STRATEGIES["adaptive"]([fast, slow], long, Random(0)) is fast
    slow.turn += 2
    assert STRATEGIES["adaptive"]([fast, slow], short, Random(0)) is fast


def test_adaptive_reaches_every_one_of_many_replicas() -> None:
    seen = [Load(str(place)) for place in range(5 * LOOKED_AT)]
    rng = Random(0)
    # The chance that one of 60 is missed by 2000 draws is 60 x (59 / 60) ** 2000, below 1e-12.
    assert len({STRATEGIES["adaptive"](seen, Asked(NOW), rng).replica_id for _ in range(2000)}) == len(seen)
