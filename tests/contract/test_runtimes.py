"""What every runtime promises of the replicas it starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest

from ragworks.control_protocols import Replica, ReplicaSpec
from ragworks.errors import CannotStart, InvalidInput, NotReady, QueueFull, RagworksError, ReplicaLost
from ragworks.runtimes.inline import InlineRuntime
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.testing import settle, until
from replica_services import Broken, Echo, Odd, Sore, Stuck

Runtimes = InlineRuntime | ProcessRuntime
RUNTIMES: dict[str, Callable[[int], Runtimes]] = {
    "inline": lambda max_calls: InlineRuntime(max_calls=max_calls),
    "process": lambda max_calls: ProcessRuntime(max_calls=max_calls),
}
MAX_CALLS = 16


@pytest.fixture(params=sorted(RUNTIMES))
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtimes]:
    async with RUNTIMES[request.param](MAX_CALLS) as runtime:
        yield runtime


@pytest.fixture
async def replica(runtime: Runtimes) -> Replica:
    return await runtime.start(spec(), "echo-1")


def spec(factory: Any = Echo, *arguments: Any) -> ReplicaSpec:
    return ReplicaSpec("echo", factory, arguments)


async def has_seen(replica: Replica, what: str, times: int = 1) -> None:
    """Ask until the service has seen so much of it."""
    for _ in range(20_000):
        if (await replica.call("seen"))[what] >= times:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"the service never saw {what}")


async def gathered(items: AsyncIterator[Any], into: list[Any]) -> None:
    async for item in items:
        into.append(item)


async def patiently(replica: Replica, verb: str, *arguments: Any, **named: Any) -> Any:
    """The call, as soon as the replica takes it: one that was given up counts until it has ended there."""
    while True:
        try:
            return await replica.call(verb, *arguments, **named)
        except NotReady:
            await asyncio.sleep(0)


async def held(replica: Replica, calls: int = 1) -> list[asyncio.Task[None]]:
    """Calls that have begun and never end by themselves."""
    tasks = [asyncio.ensure_future(replica.call("hang")) for _ in range(calls)]
    await has_seen(replica, "begun", calls)
    return tasks


async def test_a_replica_is_known_by_its_id_spec_and_process(runtime: Runtimes) -> None:
    made = spec(Echo, "")
    replica = await runtime.start(made, "echo-7")
    assert (replica.id, replica.spec) == ("echo-7", made)
    assert psutil.pid_exists(replica.pid)


async def test_a_call_returns_what_the_verb_returns(replica: Replica) -> None:
    value = {"text": "é" * 100_000, "nested": [1, 2.5, None, (True, b"bytes")]}
    assert await replica.call("echo", value, turns=3) == value
    assert await replica.call("stats") == {"note": ""}
    assert (await replica.call("check_health")).service_name == "echo"


async def test_a_long_value_of_small_parts_comes_back(replica: Replica) -> None:
    """It is packed and opened in threads."""
    value = [f"passage {number} of many" * 3 for number in range(30_000)]
    assert await replica.call("echo", value) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
        np.arange(20)[::2],
        np.zeros((0, 384), np.float32),
        np.array(2.5),
        np.array([("a", 1)], dtype=[("name", "U4"), ("count", "i4")]),
    ],
    ids=["cube", "fortran", "strided", "empty", "scalar", "records"],
)
async def test_arrays_arrive_equal_and_read_only(replica: Replica, array: Any) -> None:
    found = await replica.call("echo", array)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


async def test_an_array_of_64_mb_arrives(replica: Replica) -> None:
    array = np.arange(16_000_000, dtype=np.float32)
    assert np.array_equal(await replica.call("echo", array), array)


async def test_an_error_of_ours_comes_back_as_itself_with_its_fields(replica: Replica) -> None:
    with pytest.raises(QueueFull, match=r"^no room$") as caught:
        await replica.call("refuse")
    assert caught.value.retry_after_s == 3.5


@pytest.mark.parametrize(
    ("verb", "names"), [("fail", "ValueError: the third byte is odd"), ("give_up", "TimeoutError: the disk is slow")]
)
async def test_any_other_error_is_one_of_ours_that_names_it(replica: Replica, verb: str, names: str) -> None:
    """A TimeoutError of the verb's own, too: the caller's means that the replica did not answer."""
    with pytest.raises(RagworksError, match=names) as caught:
        await replica.call(verb)
    assert type(caught.value) is RagworksError
    assert await replica.call("echo", "next") == "next"


@pytest.mark.parametrize("verb", ["no_such", "_seen", "__init__"])
async def test_what_is_no_verb_is_refused(replica: Replica, verb: str) -> None:
    with pytest.raises(InvalidInput, match=f"Echo has no verb '{verb}'"):
        await replica.call(verb)
    with pytest.raises(InvalidInput, match=f"Echo has no verb '{verb}'"):
        await anext(replica.stream(verb))


async def test_a_stream_gives_every_item_in_order(replica: Replica) -> None:
    assert [item async for item in replica.stream("count", 100)] == list(range(100))
    assert [float(item[0]) async for item in replica.stream("arrays", 20)] == list(range(20))
    assert [item async for item in replica.stream("count", 0)] == []


async def test_a_stream_that_fails_gives_what_came_before(replica: Replica) -> None:
    items: list[int] = []
    with pytest.raises(RagworksError, match="ValueError: item 30 is odd"):
        await gathered(replica.stream("count", 100, fail_at=30), items)
    assert items == list(range(30))


async def test_a_stream_does_not_run_far_ahead_of_its_reader(replica: Replica) -> None:
    """A reader that is slow, such as a client on a bad line, must not make its answer pile up here."""
    async with aclosing(replica.stream("count", 1_000_000)) as items:
        for _ in range(20):
            await anext(items)
        for _ in range(50):
            seen = await replica.call("seen")
        assert 20 <= seen["produced"] <= 32


async def test_closing_a_stream_early_closes_it_there(replica: Replica) -> None:
    async with aclosing(replica.stream("count", 1_000_000)) as items:
        assert await anext(items) == 0
    await has_seen(replica, "closed")
    assert (await replica.call("seen"))["produced"] < 100


async def test_an_item_that_does_not_come_in_time_ends_the_stream(replica: Replica) -> None:
    items: list[int] = []
    with pytest.raises(TimeoutError, match="echo-1"):
        await gathered(replica.stream("count", 9, hang_at=5, timeout_s=0.2), items)
    assert items == [0, 1, 2, 3, 4]
    await has_seen(replica, "closed")


async def test_cancelling_a_call_cancels_its_verb(replica: Replica) -> None:
    (call,) = await held(replica)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await has_seen(replica, "cancelled")


async def test_a_call_that_takes_too_long_is_given_up_and_its_verb_cancelled(replica: Replica) -> None:
    with pytest.raises(TimeoutError, match=r"echo-1 did not answer hang within 0\.05 s"):
        await replica.call("hang", timeout_s=0.05)
    await has_seen(replica, "cancelled")


async def test_answers_reach_their_own_callers(replica: Replica) -> None:
    """Long and short, quick and slow, some of them cancelled on the way."""
    rng, room = Random(0), asyncio.Semaphore(MAX_CALLS - 2)

    async def one(number: int) -> bool:
        async with room:
            value = (number, np.full(rng.choice((1, 1_000, 200_000)), number))
            call = asyncio.ensure_future(patiently(replica, "echo", value, turns=rng.randrange(20)))
            if rng.random() < 0.2:
                await settle()
                call.cancel()
                await asyncio.wait({call})
                return True
            back, array = await call
            return bool(back == number and (array == number).all() and len(array) == len(value[1]))

    assert all(await asyncio.gather(*(one(number) for number in range(300))))


async def test_more_calls_than_it_takes_are_refused_but_not_a_probe(replica: Replica) -> None:
    """A full replica is busy, not dead, and who asks for its health must hear so."""
    calls = [asyncio.ensure_future(replica.call("hang")) for _ in range(MAX_CALLS)]
    await settle()
    with pytest.raises(NotReady, match=f"{MAX_CALLS} calls in flight"):
        await replica.call("echo", 1)
    assert await replica.call("check_health")
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await patiently(replica, "echo", 1) == 1


async def test_a_stop_lets_calls_end_refuses_new_ones_and_shuts_down(runtime: Runtimes, tmp_path: Path) -> None:
    note, word = tmp_path / "note", tmp_path / "word"
    replica = await runtime.start(spec(Echo, str(note)), "echo-1")
    call = asyncio.ensure_future(replica.call("told", str(word)))
    await has_seen(replica, "begun")
    stop = asyncio.ensure_future(replica.stop(drain_s=30))
    await settle()
    with pytest.raises(NotReady, match="echo-1"):
        await replica.call("echo", 1)
    assert not note.exists()
    word.touch()
    assert await call == "told"
    await stop
    assert note.read_text() == "shut down"
    assert "stopped" in await replica.ended()


async def test_a_stop_takes_the_calls_that_do_not_end_in_time(runtime: Runtimes, tmp_path: Path) -> None:
    replica = await runtime.start(spec(Echo, str(tmp_path / "note")), "echo-1")
    calls = await held(replica, 3)
    await replica.stop(drain_s=0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [ReplicaLost] * 3
    assert (tmp_path / "note").exists()


async def test_a_stop_ends_a_stream_that_is_not_read_to_its_end(replica: Replica) -> None:
    items = replica.stream("count", 1_000_000)
    assert await anext(items) == 0
    await replica.stop(drain_s=0)
    with pytest.raises(ReplicaLost):
        await gathered(items, [])


async def test_a_shutdown_that_fails_is_told_and_ends_the_replica_all_the_same(runtime: Runtimes) -> None:
    replica = await runtime.start(spec(Sore), "echo-1")
    await replica.stop(drain_s=0)
    assert "ValueError: the disk is gone" in await replica.ended()


async def test_stopping_twice_and_killing_what_is_gone_is_harmless(replica: Replica) -> None:
    await asyncio.gather(replica.stop(drain_s=1), replica.stop(drain_s=0))
    await replica.stop(drain_s=0)
    await replica.kill()
    assert "stopped" in await replica.ended()


async def test_a_kill_loses_the_calls_in_flight(replica: Replica) -> None:
    calls = await held(replica, 3)
    items = replica.stream("count", 100)
    await anext(items)
    await replica.kill()
    for end in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(end, ReplicaLost)
        assert "killed" in str(end)
    with pytest.raises(ReplicaLost):
        await gathered(items, [])
    with pytest.raises(ReplicaLost, match="echo-1 is gone"):
        await replica.call("echo", 1)


async def test_a_kill_does_not_wait_for_a_stop_that_drains(replica: Replica) -> None:
    (call,) = await held(replica)
    stop = asyncio.ensure_future(replica.stop(drain_s=3600))
    await settle()
    await replica.kill()
    await stop
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], ReplicaLost)


async def test_everyone_who_waits_hears_that_it_has_ended(replica: Replica) -> None:
    waiting = [asyncio.ensure_future(replica.ended()) for _ in range(3)]
    await settle()
    assert not any(one.done() for one in waiting)
    waiting.pop().cancel()
    await replica.kill()
    assert len(set(await asyncio.gather(*waiting))) == 1


async def test_another_replica_takes_the_place_of_one_that_is_gone(runtime: Runtimes, replica: Replica) -> None:
    await replica.kill()
    another = await runtime.start(replica.spec, "echo-2")
    assert await another.call("echo", "here") == "here"


async def test_replicas_of_one_spec_are_apart(runtime: Runtimes, replica: Replica) -> None:
    another = await runtime.start(replica.spec, "echo-2")
    await replica.call("echo", 1)
    assert [item async for item in replica.stream("count", 3)] == [0, 1, 2]
    assert (await replica.call("seen"))["produced"] == 3
    assert (await another.call("seen"))["produced"] == 0
    await replica.kill()
    assert await another.call("echo", 1) == 1


async def test_a_start_that_fails_raises_what_initialize_raised(runtime: Runtimes) -> None:
    with pytest.raises(CannotStart, match="the model is not there"):
        await runtime.start(spec(Broken), "echo-1")
    with pytest.raises(RagworksError, match="ValueError: the third byte is odd"):
        await runtime.start(spec(Odd), "echo-2")
    assert not psutil.Process().children()


async def test_a_start_that_is_cancelled_leaves_nothing(runtime: Runtimes, tmp_path: Path) -> None:
    note = tmp_path / "note"
    start = asyncio.ensure_future(runtime.start(spec(Stuck, str(note)), "echo-1"))
    await until(lambda: note.exists() and note.read_text())
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    pid = int(note.read_text())
    assert pid == os.getpid() or not psutil.pid_exists(pid)


async def test_leaving_the_runtime_ends_what_is_left() -> None:
    for make in RUNTIMES.values():
        async with make(MAX_CALLS) as runtime:
            replicas = [await runtime.start(spec(), f"echo-{number}") for number in range(2)]
            (call,) = await held(replicas[0])
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], ReplicaLost)
        assert [bool(await replica.ended()) for replica in replicas] == [True, True]
    assert not psutil.Process().children()
