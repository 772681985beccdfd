"""The door for questions: it counts, lets out whoever leaves, and keeps those apart whom it sent away."""

from __future__ import annotations

from typing import Any

import pytest

from ragworks.control.gate import Gate
from ragworks.errors import TooManyQuestions
from ragworks.policies.crowding import SHORTEST_S, UNKNOWN_S
from ragworks.testing import FakeClock


def test_a_place_is_free_again_however_a_question_ends() -> None:
    gate = Gate(1, FakeClock())
    for _ in range(3):
        with pytest.raises(ValueError, match="no answer"), gate.inside():
            raise ValueError("no answer")
    with gate.inside(), pytest.raises(TooManyQuestions), gate.inside():
        pass
    with gate.inside():
        pass


async def test_those_sent_away_come_back_one_after_another_at_the_speed_of_the_crowd() -> None:
    clock = FakeClock()
    gate = Gate(10, clock)
    for _ in range(20):  # one a second, since no more came
        with gate.inside():
            await clock.advance(0.1)
        await clock.advance(0.9)
    places = [gate.inside() for _ in range(10)]
    for place in places:
        place.__enter__()
    assert refused(gate).retry_after_s == UNKNOWN_S
    for _ in range(4):  # then ten a second
        await clock.advance(0.1)
        places.pop(0).__exit__(None, None, None)
        places.append(gate.inside())
        places[-1].__enter__()
    told = [refused(gate).retry_after_s for _ in range(30)]
    assert told[:5] == [1.0] * 5
    assert told[29] == pytest.approx(3.1)
    await clock.advance(1.05)  # those of the first second are back, and whoever was told before them and later is not
    assert "and 22 were told to come back" in str(refused(gate))


async def test_a_caller_that_does_not_wait_does_not_push_the_others_out() -> None:
    clock = FakeClock()
    gate = Gate(1, clock)
    for _ in range(2000):
        with gate.inside():
            await clock.advance(0.01)
            waits = refused(gate).retry_after_s
    assert waits == SHORTEST_S


def test_a_refusal_is_an_event_that_can_be_replayed() -> None:
    kept: list[dict[str, Any]] = []
    gate = Gate(1, FakeClock(), lambda action, **more: kept.append({"action": action, **more}))
    with gate.inside():
        refused(gate)
    assert [(one["action"], one["policy"]) for one in kept] == [("refused", "crowding.turn")]
    assert kept[0]["inputs"]["seen"].inside == 1


def refused(gate: Gate) -> TooManyQuestions:
    with pytest.raises(TooManyQuestions) as error, gate.inside():
        pass
    return error.value
