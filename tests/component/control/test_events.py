"""The Journal: what is recorded is kept a moment later, and nobody is hurt by its keeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from ragworks.control.behind import FLUSH_EVERY_S, MAX_WAITING, RETRY_S
from ragworks.control.events import (
    BURST,
    MAX_CHARACTERS,
    MAX_REASON,
    WINDOW_S,
    Journal,
)
from ragworks.control_protocols import Record
from ragworks.errors import StorageFull
from ragworks.policies.ejecting import Action, EjectSettings, Seen, Standing, judge
from ragworks.policies.replaying import asked_again
from ragworks.policies.restarting import RestartSettings, RestartState, decide, ended
from ragworks.testing import FakeClock, MemoryEvents

FULL = StorageFull("the disk is full")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kept() -> MemoryEvents:
    return MemoryEvents()


@pytest.fixture
async def journal(kept: MemoryEvents, clock: FakeClock) -> AsyncIterator[Journal]:
    async with Journal(kept, clock) as opened:
        yield opened


@pytest.fixture
def record(journal: Journal) -> Record:
    return journal.for_service("embeddings_service")


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def reasons(kept: MemoryEvents) -> list[str]:
    return [event.reason for event in kept.kept]


async def test_what_happened_is_kept_within_half_a_second(record: Record, kept, clock) -> None:
    record("replica_ended", reason="out of memory", replica="e-1", inputs={"pid": 7})
    assert not kept.kept  # nobody waits for the disk
    await clock.advance(FLUSH_EVERY_S)
    [event] = kept.kept
    assert (event.service, event.replica, event.action) == ("embeddings_service", "e-1", "replica_ended")
    assert (event.policy, event.inputs, event.decision) == ("", {"pid": 7}, {})
    assert event.at == pytest.approx(clock.now() - FLUSH_EVERY_S)


async def test_a_decision_is_kept_so_that_its_policy_can_be_asked_again(record: Record, journal: Journal) -> None:
    settings, seed = RestartSettings(), 42
    state = ended(settings, RestartState(failures=2), 9.0, "out of memory")
    inputs = {"settings": settings, "state": state, "now": 9.0}
    decision = decide(**inputs, rng=Random(seed))
    record(
        "restarts",
        reason=decision.reason,
        policy="restarting.decide",
        inputs={**inputs, "rng": seed},
        decision=decision,
    )
    inputs = {
        "settings": EjectSettings(), "seen": Seen(errors_in_row=3), "standing": Standing(),
        "peers_response_s": [0.1], "out": 0, "replicas": 2, "now": 1.0,
    }  # fmt: skip
    verdict = judge(**inputs)
    record(verdict.action, reason=verdict.reason, policy="ejecting.judge", inputs=inputs, decision=verdict)
    events = await journal.recent()
    assert [event.action for event in events] == ["restarts", Action.EJECT]
    assert [asked_again(e.policy, e.inputs, e.decision).same for e in events] == [True, True]


async def test_who_asks_hears_of_what_happened_just_now(record: Record, journal: Journal) -> None:
    record("scaled", reason="asked for")
    assert [event.reason for event in await journal.recent(service="embeddings_service")] == ["asked for"]


async def test_leaving_keeps_what_still_waits(kept: MemoryEvents, clock: FakeClock) -> None:
    async with Journal(kept, clock) as journal:
        journal.for_service("vector_store")("service_stopped", reason="asked to")
    assert reasons(kept) == ["asked to"]


async def test_each_event_is_one_line_of_the_log_by_its_severity(record: Record, logged) -> None:
    record("replica_started", reason="ready", replica="e-1")
    record("ejected", reason="errors")
    record("restarts", reason="again", decision={"crash_loop": True})
    assert [(line["action"], line["log_level"]) for line in logged] == [
        ("replica_started", "info"),
        ("ejected", "warning"),
        ("restarts", "error"),
    ]


async def test_each_act_of_a_scaler_is_kept_however_often_it_decides(record: Record, kept, clock) -> None:
    """At two decisions in five seconds, sixteen replicas come in more steps than a flood is told apart by."""
    for n in range(60):
        record("scale_up", reason=str(n))
        await clock.advance(1)
    assert reasons(kept) == [str(n) for n in range(60)]


async def test_a_flood_is_counted_and_one_event_a_minute_stands_for_it(record: Record, kept, clock, logged) -> None:
    """A thousand refusals a second must neither fill the log nor push out what else happened."""
    for minute in range(3):
        for n in range(1000):
            record("refused", reason=f"{minute}-{n}")
        await clock.advance(WINDOW_S + 2 * FLUSH_EVERY_S)
    assert len(kept.kept) == BURST + 3
    assert [event.count for event in kept.kept] == [1] * BURST + [1000 - BURST, 1000, 1000]
    assert sum(event.count for event in kept.kept) == 3000
    assert len([line for line in logged if line["action"] == "refused"]) == BURST + 3


async def test_each_event_is_heard_of_also_those_that_are_only_counted(kept: MemoryEvents, clock: FakeClock) -> None:
    heard: list[tuple[str, str]] = []
    async with Journal(kept, clock, lambda *event: heard.append(event)) as journal:
        for _ in range(100):
            journal.for_service("vector_store")("refused", reason="flood")
    assert heard == [("vector_store", "refused")] * 100


async def test_after_a_quiet_minute_each_event_is_kept_again(record: Record, kept, clock) -> None:
    for _ in range(BURST + 1):
        record("refused", reason="flood")
    await clock.advance(3 * WINDOW_S)
    record("refused", reason="one alone")
    await clock.advance(1)
    assert (kept.kept[-1].reason, kept.kept[-1].count) == ("one alone", 1)


async def test_a_flood_of_one_kind_holds_back_no_other(record: Record, journal: Journal, kept, clock) -> None:
    for _ in range(100):
        record("refused", reason="flood")
    record("eject", reason="of one", replica="e-1")
    record("eject", reason="of another", replica="e-2")
    journal.for_service("vector_store")("refused", reason="elsewhere")
    await clock.advance(1)
    assert reasons(kept)[BURST:] == ["of one", "of another", "elsewhere"]


async def test_what_was_counted_is_kept_when_the_journal_is_left(kept: MemoryEvents, clock: FakeClock) -> None:
    async with Journal(kept, clock) as journal:
        for _ in range(BURST + 7):
            journal.for_service("vector_store")("refused", reason="flood")
    assert sum(event.count for event in kept.kept) == BURST + 7


async def test_a_full_disk_is_said_once_and_what_waits_is_kept_when_there_is_room(
    record: Record, kept, clock, logged
) -> None:
    kept.error = FULL
    for n in range(3):
        record("scaled", reason=f"r{n}")
        await clock.advance(1)
    assert not kept.kept
    assert [line["action"] for line in logged].count("events_not_kept") == 1
    kept.error = None
    await clock.advance(RETRY_S + 1)
    assert reasons(kept) == ["r0", "r1", "r2"]
    assert logged[-1]["action"] == "events_kept_again"
    kept.error = FULL
    record("scaled", reason="r3")
    await clock.advance(1)
    assert [line["action"] for line in logged].count("events_not_kept") == 2


async def test_what_waits_for_a_full_disk_is_bounded_and_the_oldest_go(record: Record, kept, clock, logged) -> None:
    kept.error = FULL
    for n in range(MAX_WAITING + 50):
        record(f"kind {n}", reason=f"r{n}")
    await clock.advance(1)
    kept.error = None
    await clock.advance(RETRY_S + 1)
    assert (len(kept.kept), kept.kept[0].reason) == (MAX_WAITING, "r50")
    assert logged[-1]["lost"] == 50


async def test_any_other_error_of_the_log_hurts_nobody_either(record: Record, kept, clock, journal: Journal) -> None:
    kept.error = RuntimeError("nobody thought of this")
    record("scaled", reason="r")
    await clock.advance(1)
    kept.error = None
    await clock.advance(RETRY_S + 1)
    assert reasons(kept) == ["r"]


async def test_inputs_that_are_no_data_or_too_much_cost_the_inputs_and_not_the_event(
    record: Record, kept, clock
) -> None:
    record("scaled", reason="a mistake", policy="restarting.decide", inputs={"rng": Random(0)})
    record("scaled", reason="too much", policy="restarting.decide", inputs={"text": "x" * MAX_CHARACTERS})
    await clock.advance(1)
    assert reasons(kept) == ["a mistake", "too much"]
    assert [event.policy for event in kept.kept] == ["", ""]
    assert all("not_kept" in event.inputs for event in kept.kept)


async def test_a_decision_that_is_too_much_keeps_its_numbers(record: Record, kept, clock) -> None:
    decision = {"delay_s": 5.0, "promises": ["x" * 100] * MAX_CHARACTERS}
    record("refused", reason="y" * 10_000, policy="admission.decide", decision=decision)
    await clock.advance(1)
    assert (kept.kept[0].decision, kept.kept[0].policy) == ({"delay_s": 5.0}, "")
    assert len(kept.kept[0].reason) == MAX_REASON


async def test_the_name_of_a_file_that_is_no_text_spoils_no_other_event(record: Record, kept, clock) -> None:
    """SQLite refused half a surrogate pair, and with it every event that waited beside it, again and again."""
    record("refused", reason="cannot read b\udcff.txt", inputs={"name": "b\udcff.txt"})
    await clock.advance(1)
    assert kept.kept[0].reason == "cannot read b?.txt"
    assert kept.kept[0].inputs == {"name": "b?.txt"}


async def test_being_cancelled_while_it_writes_keeps_what_it_writes_once(clock: FakeClock) -> None:
    class Slow(MemoryEvents):
        gate = asyncio.Event()

        async def append(self, events) -> None:
            await self.gate.wait()
            await super().append(events)

    slow = Slow()
    journal = await Journal(slow, clock).__aenter__()
    journal.for_service("vector_store")("scaled", reason="once")
    await clock.advance(1)
    leaving = asyncio.ensure_future(journal.__aexit__())
    await asyncio.sleep(0)
    slow.gate.set()
    await leaving
    assert reasons(slow) == ["once"]
