"""The door for questions: it counts, lets out whoever leaves, and keeps those apart whom it sent away."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from ragworks.control.gate import Gate
from ragworks.errors import TooManyQuestions
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


async def test_those_sent_away_come_back_one_after_another_at_the_measured_speed() -> None:
    clock = FakeClock()
    gate = Gate(2, clock)
    for _ in range(11):  # ten a second
        with gate.inside():
            await clock.advance(0.1)
    with ExitStack() as full:
        for _ in range(2):
            full.enter_context(gate.inside())
        told = [refused(gate).retry_after_s for _ in range(30)]
        assert told[:10] == [1.0] * 10
        assert told[29] == pytest.approx(3.0)
        await clock.advance(1.0)  # those of the first second are back
        assert "20 were told to come back before" in str(refused(gate))


def test_a_refusal_is_an_event_that_can_be_replayed() -> None:
    kept: list[dict[str, Any]] = []
    gate = Gate(1, FakeClock(), lambda action, **more: kept.append({"action": action, **more}))
    with gate.inside():
        refused(gate)
    assert [(one["action"], one["policy"]) for one in kept] == [("refused", "crowding.enter")]
    assert kept[0]["inputs"]["seen"].inside == 1


def refused(gate: Gate) -> TooManyQuestions:
    with pytest.raises(TooManyQuestions) as error, gate.inside():
        pass
    return error.value
