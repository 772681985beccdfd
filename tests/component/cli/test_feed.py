"""Feeding a server: batches, pace, division of what does not fit, and the tally."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from ragworks.cli.ingesting import Given, ingest_sources, summarised
from ragworks.client import Client
from ragworks.errors import ServerUnreachable
from ragworks.feed import BATCH_ITEMS
from ragworks.finding import Source


class Shown:
    """The progress as it was shown: (done, total, note)."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str]] = []

    def __call__(self, what, done, total, note=""):
        self.steps.append((done, total, note))


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def sources(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).write_text(name)
        return [Source(name, tmp_path / name, 10) for name in names]

    return make


async def test_a_folder_of_any_size_goes_in_batch_by_batch(client, server, sources, shown):
    names = [f"{number:03}.md" for number in range(2 * BATCH_ITEMS + 1)]
    tally = await ingest_sources(client, sources(*names), Given(), shown)
    assert [len(batch) for batch in server.received] == [BATCH_ITEMS, BATCH_ITEMS, 1]
    assert (tally.completed, tally.done, len(tally.jobs)) == (len(names), len(names), 3)
    assert shown.steps[-1][:2] == (len(names), len(names))


async def test_a_full_queue_is_waited_for_however_long_and_the_progress_says_so(client, server, sources, shown, pauses):
    for _ in range(5):
        server.refuse(429, "queue_full", retry_after=30)
    tally = await ingest_sources(client, sources("a.md"), Given(), shown)
    assert (tally.completed, pauses.seconds) == (1, [30] * 5)
    assert (0, 1, "the server is busy, next try in 30 s") in shown.steps


async def test_a_submission_that_is_tried_again_has_the_same_key_and_the_same_bytes(client, server, sources, shown):
    server.refuse(429, "queue_full", retry_after=1)
    await ingest_sources(client, sources("a.md"), Given(metadata={"year": 2026}), shown)
    assert len(set(server.keys)) == 1
    assert server.bodies[0] == server.bodies[1] != b""
    assert (server.received, server.metadata) == ([["a.md"]], [{"year": 2026}])


async def test_room_that_our_own_documents_made_ends_the_wait_early(client, server, sources, shown):
    """Otherwise workers would idle for the rest of an estimate that came too long."""

    async def forever(seconds):
        await asyncio.Event().wait()

    client.sleep = forever
    server.welcome()
    server.refuse(429, "queue_full", retry_after=30)
    names = [f"{number:03}.md" for number in range(2 * BATCH_ITEMS)]
    tally = await ingest_sources(client, sources(*names), Given(), shown)
    assert tally.completed == len(names)


async def test_a_batch_that_could_never_fit_is_divided_until_it_does(client, server, sources, shown):
    server.largest_submission = 3
    names = [f"{number}.md" for number in range(8)]
    tally = await ingest_sources(client, sources(*names), Given(), shown)
    assert [name for batch in server.received for name in batch] == names
    assert tally.completed == 8


async def test_a_document_that_alone_could_never_fit_fails_alone(client, server, sources, shown):
    server.refuse(413, "submission_too_large")
    server.refuse(413, "document_too_large")
    tally = await ingest_sources(client, sources("huge.md", "small.md"), Given(), shown)
    assert [(one.name, one.code) for one in tally.failed] == [("huge.md", "document_too_large")]
    assert (tally.completed, tally.done) == (1, 2)


async def test_failed_and_unchanged_documents_are_told_apart_from_the_others(client, sources, shown):
    tally = await ingest_sources(client, sources("a.md", "bad.md", "same.md"), Given(), shown)
    assert (tally.completed, tally.unchanged) == (2, 1)
    assert [(one.name, one.code, one.stage) for one in tally.failed] == [("bad.md", "corrupt_document", "parsing")]


async def test_a_file_that_vanished_fails_alone(client, server, sources, shown):
    found = sources("a.md", "b.md")
    found[0].path.unlink()
    tally = await ingest_sources(client, found, Given(), shown)
    assert [(one.name, one.code) for one in tally.failed] == [("a.md", "unreadable_file")]
    assert server.received == [["b.md"]]


async def test_the_stages_that_documents_are_in_are_shown(client, sources, shown):
    await ingest_sources(client, sources("a.md", "b.md"), Given(), shown)
    assert {"2 parsing", "2 embedding", "2 storing"} <= {note for _, _, note in shown.steps}


async def test_without_waiting_it_returns_when_all_is_accepted(client, server, sources, shown):
    tally = await ingest_sources(client, sources("a.md"), Given("mine", {"year": 1}), shown, wait=False)
    summary = summarised("mine", tally, [], waited=False, seconds=1.0)
    assert summary["file_counts"]["accepted"] == 1
    assert summary["jobs"] == ["job-1"]
    assert (server.jobs["job-1"]["collection"], server.metadata) == ("mine", [{"year": 1}])


async def test_each_folder_is_a_submission_of_its_own_origin_and_the_priority_travels(client, server, sources, shown):
    one, two = sources("a.md", "b.md")
    found = [replace(one, origin="/srv/one"), replace(two, origin="/srv/two"), *sources("c.md")]
    await ingest_sources(client, found, Given(priority="low"), shown)
    assert server.received == [["a.md"], ["b.md"], ["c.md"]]
    assert server.fields == [
        {"origin": "/srv/one", "priority": "low"},
        {"origin": "/srv/two", "priority": "low"},
        {"priority": "low"},
    ]


async def test_a_server_that_dies_is_one_error_and_not_a_group(sources, shown, pauses):
    def die(request):
        raise httpx.ConnectError("refused")

    async with httpx.AsyncClient(base_url="http://dead", transport=httpx.MockTransport(die)) as http:
        with pytest.raises(ServerUnreachable):
            await ingest_sources(Client(http, "http://dead", sleep=pauses), sources("a.md"), Given(), shown)
