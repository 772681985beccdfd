"""Every EventLog: ids that grow, the newest or the next ones, and no more than may be kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragworks.control_protocols import Event, EventLog
from ragworks.settings import EventSettings
from ragworks.storage.events import SqliteEvents
from ragworks.testing import FakeClock, MemoryEvents

KEEP = 20


def an_event(reason: str = "because", *, service: str = "vector_store", at: float = 1_700_000_000.0) -> Event:
    inputs = {"settings": {"b": 1, "a": "inf"}, "ends": [1.5, 2], "text": "naïve ☃"}
    return Event(0, at, "eject", service, f"{service}-1", "ejecting.judge", inputs, {"delay_s": 0.1}, reason, 3)


@pytest.fixture(params=["sqlite", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    if request.param == "memory":
        yield MemoryEvents(KEEP)
        return
    kept = SqliteEvents(tmp_path / "events.db", EventSettings(keep=KEEP), FakeClock())
    kept.open()
    yield kept
    kept.close()


async def reasons(log: EventLog, **which: object) -> list[str]:
    return [event.reason for event in await log.recent(**which)]  # type: ignore[arg-type]


async def test_an_event_comes_back_as_it_was_with_an_id(log: EventLog) -> None:
    await log.append([an_event()])
    [found] = await log.recent()
    assert found.id > 0
    assert found == Event(found.id, *[getattr(an_event(), name) for name in Event.__slots__[1:]])
    assert list(found.inputs) == ["settings", "ends", "text"]  # a policy may go by the order
    assert list(found.inputs["settings"]) == ["b", "a"]


async def test_the_newest_come_oldest_first(log: EventLog) -> None:
    await log.append([an_event(f"r{n}") for n in range(5)])
    assert await reasons(log, limit=2) == ["r3", "r4"]


async def test_who_polls_from_the_last_id_misses_none(log: EventLog) -> None:
    await log.append([an_event(f"r{n}") for n in range(5)])
    first = (await log.recent())[0].id
    assert await reasons(log, after=first, limit=2) == ["r1", "r2"]
    assert await reasons(log, after=0, limit=2) == ["r0", "r1"]
    assert await reasons(log, after=first + 4) == []


async def test_who_reads_back_from_an_id_gets_the_newest_before_it(log: EventLog) -> None:
    await log.append([an_event(f"r{n}") for n in range(5)])
    last = (await log.recent())[-1].id
    assert await reasons(log, before=last, limit=2) == ["r2", "r3"]
    assert await reasons(log, before=last - 4) == []


async def test_a_service_and_a_time_can_be_asked_for(log: EventLog) -> None:
    at = an_event().at
    await log.append([an_event("old", at=at - 60), an_event("new"), an_event("other", service="retrieval_service")])
    assert await reasons(log, service="vector_store") == ["old", "new"]
    assert await reasons(log, since=at) == ["new", "other"]
    assert await reasons(log, service="generation_service") == []


async def test_the_oldest_go_and_their_ids_are_never_given_again(log: EventLog) -> None:
    for n in range(3):
        await log.append([an_event(f"r{n}-{m}") for m in range(KEEP)])
    found = await log.recent(limit=1000)
    assert [event.reason for event in found] == [f"r2-{m}" for m in range(KEEP)]
    assert found[0].id > 2 * KEEP


async def test_an_empty_log_has_nothing_to_tell(log: EventLog) -> None:
    await log.append([])
    assert await log.recent() in ([], ())
