"""What a replica in a process of its own survives, and what survives it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ragworks.control_protocols import ReplicaSpec
from ragworks.errors import InvalidInput, NotReady, RagworksError, ReplicaLost
from ragworks.runtimes import packing, replicas, spawning
from ragworks.runtimes.replicas import ProcessReplica, ProcessRuntime
from ragworks.testing import settle, until
from replica_services import Clinging, Dying, Echo, Stuck


@pytest.fixture
async def runtime() -> AsyncIterator[ProcessRuntime]:
    async with ProcessRuntime(max_calls=16) as runtime:
        yield runtime
    assert not psutil.Process().children()


@pytest.fixture
async def replica(runtime: ProcessRuntime) -> ProcessReplica:
    return await runtime.start(spec(), "echo-1")


def spec(factory: Any = Echo, *arguments: Any) -> ReplicaSpec:
    return ReplicaSpec("echo", factory, arguments)


async def test_a_replica_that_is_killed_costs_its_calls_and_says_by_what(replica: ProcessReplica) -> None:
    calls = [asyncio.ensure_future(replica.call("hang")) for _ in range(10)]
    big = asyncio.ensure_future(replica.call("echo", np.zeros(10_000_000)))
    await settle()
    os.kill(replica.pid, signal.SIGKILL)
    for end in await asyncio.gather(*calls, big, return_exceptions=True):
        assert isinstance(end, ReplicaLost)
        assert "killed by SIGKILL" in str(end)
    assert await replica.ended() == "was killed by SIGKILL"
    assert replica.usage().memory_bytes is None


async def test_a_replica_that_exits_by_itself_says_how_and_what_it_said_last(replica: ProcessReplica) -> None:
    with pytest.raises(ReplicaLost, match="exit code 3; it said last: the model gave up"):
        await replica.call("exit_with", 3)


async def test_a_replica_that_stands_still_times_out_takes_no_more_than_it_may_and_can_be_killed(
    replica: ProcessReplica,
) -> None:
    os.kill(replica.pid, signal.SIGSTOP)
    large = np.zeros(1_000_000)
    ends = await asyncio.gather(
        *(replica.call("echo", large, timeout_s=0.2) for _ in range(16)), return_exceptions=True
    )
    assert {type(end) for end in ends} == {TimeoutError}
    for _ in range(100):  # however often it is tried, no more is kept for it than 16 calls
        with pytest.raises((TimeoutError, NotReady)):
            await replica.call("echo", large, timeout_s=0)
    assert len(replica._calls) <= 16
    await replica.kill()
    with pytest.raises(ReplicaLost):
        await replica.call("echo", 1)


async def test_a_replica_that_stood_still_goes_on_and_drops_what_was_given_up(replica: ProcessReplica) -> None:
    os.kill(replica.pid, signal.SIGSTOP)
    for _ in range(16):
        with pytest.raises(TimeoutError):
            await replica.call("echo", np.zeros(100_000), timeout_s=0.01)
    os.kill(replica.pid, signal.SIGCONT)
    assert await replica.call("check_health")
    assert await replica.call("echo", "well") == "well"


async def test_a_runtime_that_was_left_starts_nothing() -> None:
    async with ProcessRuntime() as runtime:
        start = asyncio.ensure_future(runtime.start(spec(), "echo-1"))
        await asyncio.sleep(0)
    with pytest.raises(ReplicaLost):
        await start
    assert not psutil.Process().children()


async def test_a_child_imports_nothing_that_its_service_does_not_need() -> None:
    """Its start is the time to full strength after a crash."""
    code = "import sys, ragworks.runtimes.host; print({'numpy', 'psutil', 'structlog', 'httpx'} & set(sys.modules))"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code,
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (await child.communicate())[0] == b"set()\n"


async def test_a_start_that_never_ends_leaves_no_process(runtime: ProcessRuntime, tmp_path: Path) -> None:
    note = tmp_path / "note"
    start = asyncio.ensure_future(runtime.start(spec(Stuck, str(note)), "echo-1"))
    await until(note.exists)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(start, 0.01)
    assert not psutil.Process().children()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6, 8, 13, 50])
async def test_a_start_may_be_cancelled_at_any_moment(runtime: ProcessRuntime, turns: int) -> None:
    start = asyncio.ensure_future(runtime.start(spec(), "echo-1"))
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not psutil.Process().children()


async def test_a_replica_that_dies_while_it_starts_is_lost(runtime: ProcessRuntime) -> None:
    with pytest.raises(ReplicaLost, match="exit code 3; it said last: the model gave up"):
        await runtime.start(spec(Dying), "echo-1")


async def test_what_cannot_travel_starts_no_process(runtime: ProcessRuntime) -> None:
    with pytest.raises(InvalidInput, match="the factory of echo must be importable"):
        await runtime.start(spec(lambda: Echo()), "echo-1")
    with pytest.raises(InvalidInput, match="its arguments picklable"):
        await runtime.start(spec(Echo, lambda: None), "echo-1")
    assert not psutil.Process().children()


async def test_arguments_and_results_that_cannot_travel_fail_their_call_alone(replica: ProcessReplica) -> None:
    with pytest.raises(InvalidInput, match="the arguments of echo cannot travel to echo-1"):
        await replica.call("echo", lambda: None)
    with pytest.raises(RagworksError, match="pickle"):
        await replica.call("unpicklable")
    assert await replica.call("echo", 1) == 1


async def test_a_message_that_is_too_long_is_refused_before_it_is_sent(
    replica: ProcessReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 100_000)
    with pytest.raises(InvalidInput, match=r"may have 100000 bytes, this has 8\d{5}"):
        await replica.call("echo", np.zeros(100_000))
    assert await replica.call("echo", 1) == 1


async def test_arrays_within_a_value_share_the_memory_of_the_message(replica: ProcessReplica) -> None:
    """None of them is copied out of it, and each lies where vector instructions like it."""
    value = {"vectors": [np.full((3, 5), number, np.float32) for number in range(20)], "name": "x"}
    found = await replica.call("echo", value)
    for number, array in enumerate(found["vectors"]):
        assert (array == number).all()
        assert not array.flags.writeable
        assert not array.flags.owndata


async def test_what_a_library_prints_reaches_the_log_and_not_the_channel(replica: ProcessReplica) -> None:
    assert await replica.call("noise") == "clear, read b''"
    assert await replica.call("echo", "next") == "next"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_for_the_whole_group_does_not_end_a_replica(replica: ProcessReplica, number: int) -> None:
    """The server hears it too, and drains first."""
    assert await replica.call("survive", int(number)) == "alive"


async def test_a_leak_is_seen_in_its_usage(replica: ProcessReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "USAGE_S", 0.0)
    assert replica.usage().cpu_percent is None
    before = replica.usage()
    assert before.cpu_percent is not None
    assert before.memory_bytes is not None
    await replica.call("leak", 200 * 1024**2)
    after = replica.usage()
    assert after.memory_bytes is not None
    assert after.memory_bytes - before.memory_bytes > 150 * 1024**2


async def test_who_asks_in_a_row_gets_the_same_figure(replica: ProcessReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health checker, the scaler and the metrics all ask; psutil would tell the second of them 0 %."""
    assert replica.usage().cpu_percent is None
    monkeypatch.setattr(spawning, "USAGE_S", 0.0)
    await replica.call("leak", 50 * 1024**2)
    busy = replica.usage().cpu_percent
    assert busy
    monkeypatch.setattr(spawning, "USAGE_S", 3600.0)
    assert [replica.usage().cpu_percent for _ in range(3)] == [busy] * 3


async def test_a_grandchild_that_holds_the_pipes_does_not_hide_the_end(replica: ProcessReplica) -> None:
    grandchild = await replica.call("leave_a_grandchild")
    try:
        os.kill(replica.pid, signal.SIGKILL)
        assert await replica.ended() == "was killed by SIGKILL"
    finally:
        os.kill(grandchild, signal.SIGKILL)


async def test_a_replica_that_loses_its_channel_is_ended(replica: ProcessReplica) -> None:
    with pytest.raises(ReplicaLost):
        await replica.call("close_everything")
    assert not psutil.pid_exists(replica.pid)


async def test_a_shutdown_that_never_ends_is_cut_short(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "SHUTDOWN_LIMIT_S", 0.2)
    replica = await runtime.start(spec(Clinging), "echo-1")
    await replica.stop(drain_s=0)
    assert "killed by SIGKILL" in await replica.ended()


@dataclass
class Unreadable:
    """Falls apart wherever it is opened."""

    where: int

    def __setstate__(self, state: Any) -> None:
        raise ValueError("odd state")


async def test_arguments_that_cannot_be_opened_there_fail_their_call_alone(replica: ProcessReplica) -> None:
    with pytest.raises(RagworksError):
        await replica.call("echo", Unreadable(1))
    assert await replica.call("echo", 1) == 1


PARENT = """
import asyncio, sys
from ragworks.control_protocols import ReplicaSpec
from ragworks.runtimes.replicas import ProcessRuntime
from replica_services import Echo
async def main():
    async with ProcessRuntime() as runtime:
        idle = await runtime.start(ReplicaSpec("echo", Echo), "echo-1")
        busy = await runtime.start(ReplicaSpec("echo", Echo), "echo-2")
        print(idle.pid, busy.pid, flush=True)
        await busy.call("block", sys.argv[1])
asyncio.run(main())
"""


async def test_no_replica_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    """One that is idle and one whose interpreter is held by a library, which no thread of ours could end."""
    lock = tmp_path / "lock"
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(lock),
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    await until((tmp_path / "lock.pid").exists)
    parent.kill()
    await parent.wait()

    def take() -> None:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    await asyncio.to_thread(take)  # nobody holds it: the busy one is gone
    await until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
