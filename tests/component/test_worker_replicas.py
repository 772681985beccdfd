"""The workers of a pool as the replicas of document_processor."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pool_tasks
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.workers import WorkerReplicas
from ragworks.scalers import workers_scaler
from ragworks.settings_scaling import ScalingSettings
from ragworks.testing import FakeClock, settle
from ragworks.types import Health, Life
from team import Recorded


async def test_workers_are_shown_with_their_process_and_the_places_that_wait_for_a_document() -> None:
    async with WorkerPool(2) as pool:
        replicas = WorkerReplicas("document_processor", pool, (1, 10), 2**31)
        assert [(one.pid, one.status, one.note) for one in replicas.reports()] == [
            (None, "stopped", "starts with the next document")
        ] * 2
        await pool.run(pool_tasks.echo, 2, limit_s=30, max_memory_bytes=2**31)
        busy, free = replicas.reports()
        assert (busy.pid, busy.status, busy.life, busy.active_connections) == (pool.pids()[0], "healthy", Life.READY, 0)
        assert busy.memory_usage
        assert (replicas.stats()["waiting"], replicas.stats()["completed"]) == (0, 1)
        assert free.pid is None
        await replicas.scale(1)
        assert (replicas.size, len(replicas.reports())) == (1, 1)
        assert replicas.health() == (Health.HEALTHY, "")


async def test_workers_are_scaled_by_the_reads_that_wait_for_one(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")  # which nobody writes to
    clock, told = FakeClock(), Recorded()
    async with WorkerPool(1) as pool:
        workers = WorkerReplicas("document_processor", pool, (1, 3), 2**31)
        scaler = workers_scaler("document_processor", ScalingSettings(), workers, pool, 8, clock, told)
        assert scaler
        await pool.run(pool_tasks.echo, 1, limit_s=30, max_memory_bytes=2**31)
        async with scaler:
            await clock.advance(31)
            assert (workers.size, scaler.last and scaler.last.seen and scaler.last.seen.concurrency) == (1, 0.0)
            held = [
                asyncio.create_task(pool.run(pool_tasks.read_pipe, str(pipe), limit_s=60, max_memory_bytes=2**31))
                for _ in range(5)
            ]
            await settle()
            assert pool.stats()["waiting"] == 4
            await clock.advance(31)
            assert (workers.size, told.actions) == (3, ["scale_up"])
            for one in held:
                one.cancel()
            await asyncio.gather(*held, return_exceptions=True)
