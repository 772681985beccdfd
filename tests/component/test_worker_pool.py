from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

import pool_tasks
from ragworks.errors import CorruptDocument, QueueFull, ReadMemoryExceeded, ReadTimeout, WorkerCrashed
from ragworks.runtimes.processes import WorkerPool
from ragworks.testing import settle, until

LIMITS: dict[str, Any] = {"limit_s": 30.0, "max_memory_bytes": 1024**3}


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(1) as pool:
        yield pool


async def released(lock: Path) -> bool:
    """Wait until nobody holds the lock: its holder is gone."""

    def take() -> None:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    await asyncio.to_thread(take)
    return True


async def started(pool: WorkerPool, function: Callable[..., None], lock: Path) -> tuple[asyncio.Task[None], int]:
    """A call that has begun and will never end, and the process that runs it."""
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(pool.run(function, str(lock), **LIMITS, on_message=begun.set_result))
    await asyncio.wait({call, begun}, return_when=asyncio.FIRST_COMPLETED)
    return call, begun.result()


def pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


async def test_what_a_worker_prints_is_a_line_of_whom_it_works_for(pool: WorkerPool) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        for task in ("t1", "t2"):
            with structlog.contextvars.bound_contextvars(task_id=task):
                await pool.run(pool_tasks.say, f"for {task}", **LIMITS)
            await until(lambda: any(task in line["line"] for line in logs), turns=10**9)  # noqa: B023
    assert [(line["event"], line["log_level"], line["line"], line["task_id"]) for line in logs] == [
        ("worker_said", "debug", "for t1", "t1"),
        ("worker_said", "debug", "for t2", "t2"),
    ]


async def test_the_answer_to_a_message_moves_the_limit_of_the_call(pool: WorkerPool, tmp_path: Path) -> None:
    """A scan of twenty pages is no hung parser: each page gives it more time. Here a message takes all of it away."""
    with pytest.raises(ReadTimeout):
        await pool.run(
            pool_tasks.hold,
            str(tmp_path / "lock"),
            limit_s=3600,
            max_memory_bytes=2**30,
            on_message=lambda pid: -3600.0,
        )


async def test_a_result_and_the_messages_before_it_come_back(pool: WorkerPool) -> None:
    value = {"text": "é" * 3_000_000}
    messages: list[str] = []
    assert await pool.run(pool_tasks.echo, value, **LIMITS, on_message=messages.append) == value
    assert messages == ["got it"]


async def test_no_process_runs_before_the_first_call(pool: WorkerPool) -> None:
    assert pool.stats()["alive"] == 0
    assert await pool.run(pool_tasks.pid, **LIMITS) in pool.pids()


async def test_a_worker_is_used_again_and_runs_at_low_priority(pool: WorkerPool) -> None:
    first, second = await pool.run(pool_tasks.pid, **LIMITS), await pool.run(pool_tasks.pid, **LIMITS)
    assert first == second
    assert psutil.Process(first).nice() > psutil.Process().nice()


async def test_a_worker_is_replaced_after_its_share_of_calls() -> None:
    async with WorkerPool(1, calls_per_child=1) as pool:
        assert await pool.run(pool_tasks.pid, **LIMITS) != await pool.run(pool_tasks.pid, **LIMITS)
        assert pool.stats()["retired"] == 2


async def test_a_worker_that_keeps_much_memory_is_replaced() -> None:
    async with WorkerPool(1, idle_memory_bytes=1) as pool:
        assert await pool.run(pool_tasks.pid, **LIMITS) != await pool.run(pool_tasks.pid, **LIMITS)


async def test_an_error_of_ours_comes_back_as_itself_with_its_fields(pool: WorkerPool) -> None:
    with pytest.raises(QueueFull, match=r"^no room$") as caught:
        await pool.run(pool_tasks.refuse, **LIMITS)
    assert caught.value.retry_after_s == 3.5


async def test_any_other_error_is_a_corrupt_document_that_names_it(pool: WorkerPool) -> None:
    with pytest.raises(CorruptDocument, match="ValueError: the third byte is odd"):
        await pool.run(pool_tasks.fail, **LIMITS)
    with pytest.raises(CorruptDocument):
        await pool.run(pool_tasks.unpicklable, **LIMITS)
    assert pool.stats() | {"alive": 1, "failed": 2, "started": 1} == pool.stats()


async def test_a_worker_that_exits_costs_its_call_and_says_how(pool: WorkerPool) -> None:
    with pytest.raises(WorkerCrashed, match=r"exit code 3 .*the parser gave up"):
        await pool.run(pool_tasks.exit_with, 3, **LIMITS)
    assert await pool.run(pool_tasks.echo, "next", **LIMITS) == "next"


async def test_a_killed_worker_is_named_by_its_signal(pool: WorkerPool) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    pool.record = lambda action, **more: told.append((action, more))
    with pytest.raises(WorkerCrashed, match="SIGKILL") as caught:
        await pool.run(pool_tasks.kill_self, **LIMITS)
    assert caught.value.transient
    assert pool.stats()["crashed"] == 1
    assert [action for action, _ in told] == ["replica_ended"]


@pytest.mark.parametrize("block", pool_tasks.BLOCKING)
async def test_a_worker_that_hangs_is_stopped_at_the_limit(
    pool: WorkerPool, block: Callable[..., None], tmp_path: Path
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    pool.record = lambda action, **more: told.append((action, more))
    with (
        structlog.contextvars.bound_contextvars(document_id="a.pdf"),
        pytest.raises(ReadTimeout, match=r"0\.2 s, in which it had a core for 0\.\d s") as caught,
    ):
        await pool.run(block, str(tmp_path / "lock"), limit_s=0.2, max_memory_bytes=1024**3)
    assert caught.value.transient  # it may as well be the machine that gave it nothing
    assert await released(tmp_path / "lock")
    [(action, seen)] = told
    assert (action, seen["inputs"]["document_id"], seen["reason"]) == ("replica_killed", "a.pdf", str(caught.value))
    assert pool.stats() | {"alive": 0, "busy": 0, "timed_out": 1} == pool.stats()


async def test_a_worker_that_works_all_the_time_and_comes_to_no_end_does_so_the_next_time_too(pool: WorkerPool) -> None:
    with pytest.raises(ReadTimeout, match=r"raise document_processor\.read_timeout_s") as caught:
        await pool.run(pool_tasks.work, limit_s=2.0, max_memory_bytes=1024**3)
    assert not caught.value.transient


async def test_a_worker_that_takes_too_much_memory_is_stopped(pool: WorkerPool) -> None:
    with pytest.raises(ReadMemoryExceeded, match="the limit is 200 MiB"):
        await pool.run(pool_tasks.fill_memory, 400 * 1024**2, limit_s=30, max_memory_bytes=200 * 1024**2)
    assert pool.stats() | {"alive": 0, "over_memory": 1} == pool.stats()


async def test_cancelling_a_call_kills_its_worker_and_frees_its_place(pool: WorkerPool, tmp_path: Path) -> None:
    call, _ = await started(pool, pool_tasks.hold, tmp_path / "lock")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await released(tmp_path / "lock")
    assert await pool.run(pool_tasks.echo, "next", **LIMITS) == "next"


async def test_a_call_that_waits_for_a_worker_can_be_cancelled(pool: WorkerPool, tmp_path: Path) -> None:
    call, holder = await started(pool, pool_tasks.hold, tmp_path / "lock")
    waiting = asyncio.ensure_future(pool.run(pool_tasks.pid, **LIMITS))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.pids() == [holder]
    call.cancel()


async def test_what_a_library_prints_does_not_disturb_the_answers(pool: WorkerPool) -> None:
    assert await pool.run(pool_tasks.noise, **LIMITS) == "clear, read b''"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_for_the_whole_group_does_not_end_a_worker(pool: WorkerPool, number: int) -> None:
    """The parent hears it too, and decides what is finished first."""
    assert await pool.run(pool_tasks.survive, int(number), **LIMITS) == "alive"


async def test_what_cannot_be_sent_takes_no_worker(pool: WorkerPool) -> None:
    with pytest.raises(Exception, match="pickle"):
        await pool.run(pool_tasks.echo, lambda: None, **LIMITS)
    assert pool.stats()["started"] == 0


async def test_two_calls_run_side_by_side_in_a_pool_of_two(tmp_path: Path) -> None:
    async with WorkerPool(2) as pool:
        calls = [await started(pool, pool_tasks.hold, tmp_path / name) for name in ("one", "two")]
        assert len({process for _, process in calls}) == 2
        assert pool.stats()["busy"] == 2
    assert [isinstance((await asyncio.gather(call, return_exceptions=True))[0], WorkerCrashed) for call, _ in calls]


async def test_a_pool_that_grows_takes_a_waiting_call_at_once(tmp_path: Path) -> None:
    async with WorkerPool(1) as pool:
        await started(pool, pool_tasks.hold, tmp_path / "lock")
        waiting = asyncio.ensure_future(pool.run(pool_tasks.echo, "at once", **LIMITS))
        await settle()
        await pool.resize(2)
        assert await waiting == "at once"


async def test_a_pool_that_shrinks_finishes_what_runs_and_ends_who_is_idle(tmp_path: Path) -> None:
    async with WorkerPool(3) as pool:
        calls = [
            asyncio.ensure_future(pool.run(pool_tasks.read_pipe, str(pipe(tmp_path, name)), **LIMITS)) for name in "ab"
        ]
        await until(lambda: pool.stats()["started"] == 2)
        assert await pool.run(pool_tasks.echo, "third", **LIMITS) == "third"
        await pool.resize(1)
        assert [worker.busy for worker in pool.workers()] == [True, True]
        (tmp_path / "a").write_text("first")
        await asyncio.wait({calls[0]})
        await until(lambda: len(pool.workers()) == 1)
        waiting = asyncio.ensure_future(pool.run(pool_tasks.pid, **LIMITS))
        await settle()
        assert not waiting.done()
        (tmp_path / "b").write_text("second")
        assert await asyncio.gather(*calls) == ["first", "second"]
        assert pool.pids() == [await waiting]
        await pool.resize(2)
        assert len(set(await asyncio.gather(*(pool.run(pool_tasks.pid, **LIMITS) for _ in range(2))))) == 2


async def test_each_worker_is_reported_with_what_it_takes(pool: WorkerPool, tmp_path: Path) -> None:
    process = await pool.run(pool_tasks.pid, **LIMITS)
    (idle,) = pool.workers()
    assert (idle.pid, idle.busy) == (process, False)
    assert idle.usage.memory_bytes is not None
    assert idle.usage.memory_bytes > 1024**2
    await started(pool, pool_tasks.hold, tmp_path / "lock")
    assert [worker.busy for worker in pool.workers()] == [True]


async def test_leaving_the_pool_leaves_no_process(tmp_path: Path) -> None:
    async with WorkerPool(2) as pool:
        await pool.run(pool_tasks.pid, **LIMITS)
        call, _ = await started(pool, pool_tasks.hold, tmp_path / "lock")
        processes = pool.pids()
    with pytest.raises(WorkerCrashed):
        await call
    assert not any(psutil.pid_exists(process) for process in processes)
    with pytest.raises(WorkerCrashed, match="closed"):
        await pool.run(pool_tasks.pid, **LIMITS)


PARENT = """
import asyncio, sys, pool_tasks
from ragworks.runtimes.processes import WorkerPool
async def main():
    async with WorkerPool(1) as pool:
        await pool.run(getattr(pool_tasks, sys.argv[1]), sys.argv[2], limit_s=60, max_memory_bytes=2**40,
                       on_message=lambda pid: print(pid, flush=True))
asyncio.run(main())
"""


@pytest.mark.parametrize("block", pool_tasks.BLOCKING)
async def test_workers_die_with_their_parent_even_when_it_is_killed(block: Callable[..., None], tmp_path: Path) -> None:
    """Orphans that go on parsing were how a restart after kill -9 met the memory of the process before it."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, block.__name__, str(tmp_path / "lock"),
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert parent.stdout is not None
    assert int(await parent.stdout.readline()) > 0
    parent.kill()
    await parent.wait()
    assert await released(tmp_path / "lock")
