"""Decisions as JSON and back: for every policy that is recorded, asking again gives the same."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies import health, scaling
from ragworks.policies.admission import Promise, QueueState
from ragworks.policies.crowding import Crowd
from ragworks.policies.ejecting import EjectSettings, Seen, Standing
from ragworks.policies.health import HealthSettings, HealthState
from ragworks.policies.holding import Held
from ragworks.policies.replaying import POLICIES, asked_again, decoded, encoded, replay
from ragworks.policies.restarting import RestartSettings, RestartState
from ragworks.policies.retrying import RetrySettings
from ragworks.policies.scaling import POLICIES as SCALERS
from ragworks.policies.scaling import Load, ScaleSpec, ScaleState
from ragworks.types import Health

moments = st.floats(0, 1e6)
counts = st.integers(0, 2000)
seeds = st.integers(0, 2**32)
retry_settings = st.builds(RetrySettings, st.integers(1, 9), st.floats(0.01, 10), st.floats(0.01, 100))

loads = st.none() | st.builds(
    Load,
    instances=st.integers(1, 9),
    ready=st.integers(0, 9),
    slots=st.integers(1, 4),
    concurrency=st.none() | st.floats(0, 100) | st.just(math.inf),
    queue_size=st.none() | st.integers(0, 200),
    arrived=st.none() | st.integers(0, 200),
    completed=st.none() | st.integers(0, 200),
    service_s=st.none() | st.floats(0.01, 10),
    response_s=st.none() | st.floats(0.01, 10),
    error_percent=st.none() | st.floats(0, 100),
    cpu_percent=st.none() | st.floats(0, 100),
    memory_percent=st.none() | st.floats(0, 100),
)


@st.composite
def scale_states(draw: st.DrawFn) -> ScaleState:
    """What a scaler remembers after a while, which no generator of fields would come by."""
    state, spec = ScaleState(), ScaleSpec(policy=draw(st.sampled_from(sorted(SCALERS))))
    for n, seen in enumerate(draw(st.lists(loads, max_size=6))):
        state = scaling.decide(spec, seen, state, 1e6 - 300.0 + 30.0 * n).state
    return state


INPUTS: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "admission.decide": {
        "seen": st.builds(
            QueueState,
            documents=counts,
            size_bytes=counts,
            max_documents=counts,
            max_bytes=counts,
            finished_at=st.lists(moments, max_size=30).map(sorted).map(tuple),
            busy_since=st.just(-math.inf) | moments,
            promises=st.lists(st.builds(Promise, moments, counts, st.text(max_size=3)), max_size=3).map(tuple),
        ),
        "documents": counts,
        "size_bytes": counts,
        "now": moments,
        "who": st.text(max_size=3),
    },
    "crowding.turn": {
        "seen": st.builds(Crowd, counts, counts, st.lists(moments, max_size=30).map(sorted).map(tuple), moments),
        "now": moments,
    },
    "ejecting.judge": {
        "settings": st.builds(EjectSettings, max_ejected_share=st.floats(0, 1)),
        "seen": st.builds(Seen, st.floats(0, 50), st.floats(0, 50), st.integers(0, 5), st.none() | moments),
        "standing": st.builds(Standing, st.none() | moments, st.integers(0, 9), st.just(-math.inf) | moments),
        "peers_response_s": st.lists(moments, max_size=4),
        "out": st.integers(0, 4),
        "replicas": st.integers(1, 5),
        "now": moments,
    },
    "health.judge": {
        "settings": st.builds(HealthSettings, down_after=st.integers(1, 3), up_after=st.integers(1, 3)),
        "state": st.builds(
            HealthState,
            health=st.sampled_from(Health),
            rounds=st.lists(st.sampled_from(Health), max_size=4).map(tuple),
            missed=st.integers(0, 4),
            since=moments,
            told_at=st.none() | moments,
        ),
        "seen": st.builds(
            health.Seen,
            answered=st.none() | st.booleans(),
            said=st.none() | st.sampled_from(Health),
            detail=st.text(max_size=3),
            probe_s=st.none() | st.floats(0, 5),
            meanwhile=st.integers(0, 3),
            calls=st.integers(0, 50),
            failed=st.integers(0, 50),
            response_s=st.none() | st.floats(0, 50),
            peers_response_s=st.lists(st.floats(0, 50), max_size=3).map(tuple),
            memory_percent=st.none() | st.floats(0, 100),
        ),
        "now": moments,
    },
    "holding.hold": {
        "settings": retry_settings,
        "held": st.builds(Held, st.integers(0, 9), moments),
        "named_s": st.none() | st.floats(0, 3600),
        "now": moments,
        "rng": seeds,
    },
    "restarting.decide": {
        "settings": st.builds(RestartSettings, backoff=retry_settings, budget=st.integers(0, 5)),
        "state": st.builds(
            RestartState,
            ends=st.lists(moments, max_size=6).map(sorted).map(tuple),
            failures=st.integers(0, 9),
            up_since=st.none() | moments,
            last_reason=st.text(max_size=5),
            wanted=st.booleans(),
            others_up=st.integers(0, 2),
        ),
        "now": moments,
        "rng": seeds,
    },
    "scaling.decide": {
        "spec": st.builds(ScaleSpec, st.sampled_from(sorted(SCALERS)), max_fed=st.none() | st.integers(1, 9)),
        "seen": loads,
        "state": scale_states(),
        "now": st.floats(1e6, 2e6),
    },
}


@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data())
def test_a_policy_that_is_asked_again_says_the_same(policy: str, data: st.DataObject) -> None:
    recorded = {name: data.draw(one, name) for name, one in INPUTS[policy].items()}
    given_ = {name: Random(value) if name == "rng" else value for name, value in recorded.items()}
    decision = encoded(POLICIES[policy](**given_))
    # Through the text, as the log keeps it.
    kept = json.loads(json.dumps(encoded(recorded), allow_nan=False))
    assert replay(policy, kept) == decision
    assert asked_again(policy, kept, json.loads(json.dumps(decision, allow_nan=False))).same is True


@pytest.mark.parametrize("policy", POLICIES)
def test_every_parameter_of_a_recorded_policy_can_be_read_back(policy: str) -> None:
    assert set(INPUTS[policy]) == set(inspect.signature(POLICIES[policy]).parameters)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Inner:
    a: float
    b: str = "b"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: Inner | None
    either: int | str | Inner
    many: tuple[Inner, ...]
    pair: tuple[int, Colour]
    table: Mapping[str, Inner]
    numbered: Mapping[int, tuple[float, ...]]
    word: Literal["x", "y"]
    level: Level
    names: Collection[str]
    row: Sequence[float] = ()
    members: frozenset[int] = frozenset()
    anything: Any = None
    made: list[int] = field(default_factory=list)


inners = st.builds(Inner, st.floats(allow_nan=False), st.text(max_size=3))
outers = st.builds(
    Outer,
    inner=inners,
    maybe=st.none() | inners,
    either=st.integers() | st.text(max_size=3) | inners,
    many=st.lists(inners, max_size=2).map(tuple),
    pair=st.tuples(st.integers(), st.just(Colour.RED)),
    table=st.dictionaries(st.text(max_size=3), inners, max_size=3),
    numbered=st.dictionaries(st.integers(), st.lists(st.floats(allow_nan=False)).map(tuple), max_size=2),
    word=st.sampled_from(["x", "y"]),
    level=st.just(Level.LOW),
    names=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    row=st.lists(st.floats(allow_nan=False) | st.integers(), max_size=3).map(tuple),
    members=st.frozensets(st.integers(), max_size=3),
    anything=st.none() | st.integers(),
    made=st.lists(st.integers(), max_size=2),
)


@given(outers)
def test_a_value_comes_back_as_it_was(value: Outer) -> None:
    text = json.dumps(encoded(value), allow_nan=False)
    assert decoded(Outer, json.loads(text)) == value


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=5))
def test_a_mapping_keeps_its_order(value: dict[str, int]) -> None:
    assert list(decoded(Mapping[str, int], encoded(value))) == list(value)


def test_what_is_no_number_is_said_in_words() -> None:
    assert [encoded(value) for value in (math.nan, math.inf, -math.inf)] == ["nan", "inf", "-inf"]
    assert math.isnan(decoded(float, "nan"))
    assert [decoded(float, word) for word in ("inf", "-inf")] == [math.inf, -math.inf]


def test_a_whole_number_stays_whole_where_a_float_is_expected() -> None:
    """Else a reason that says 5 would say 5.0 when it is asked for again."""
    assert str(decoded(float, encoded(5))) == "5"


@pytest.mark.parametrize("value", [Random(0), print, b"bytes", object()])
def test_what_is_no_data_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be data"):
        encoded({"value": value})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, "5"),
        (int, True),
        (float, True),
        (str, 5),
        (Inner, []),
        (Inner, {"a": 1.0, "c": 2}),
        (Inner, {}),
        (Colour, "blue"),
        (Literal["x"], "y"),
        (tuple[int, int], [1]),
        (int | None, "x"),
        (Random, "seed"),
        (Callable[[], int], 1),
    ],
)
def test_what_was_not_written_so_is_refused_with_what_was_found(annotation: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decoded(annotation, value)


RESTART = {
    "settings": encoded(RestartSettings()),
    "state": encoded(RestartState(ends=(0.0, 1.0, 2.0), failures=3)),
    "now": 2.0,
    "rng": 7,
}


def test_another_decision_is_told_field_by_field() -> None:
    found = asked_again("restarting.decide", RESTART, {"delay_s": None, "crash_loop": False, "reason": "other"})
    assert found.same is False
    assert "another decision: delay_s 0." in found.reason
    assert "where None was recorded" in found.reason


@pytest.mark.parametrize(
    ("policy", "inputs", "reason"),
    [
        ("", {}, "nothing decided it"),
        ("guessing.guess", {}, "no policy 'guessing.guess'"),
        ("restarting.decide", {**RESTART, "mood": 1}, "takes no mood"),
        ("restarting.decide", {"now": 1.0}, "does not take these inputs"),
        ("restarting.decide", {**RESTART, "now": "one"}, "expected float"),
        ("restarting.decide", {**RESTART, "settings": {"patience": 1}}, "RestartSettings has no patience"),
    ],
)
def test_what_cannot_be_asked_says_why(policy: str, inputs: Mapping[str, Any], reason: str) -> None:
    found = asked_again(policy, inputs, {})
    assert found.same is None
    assert reason in found.reason
