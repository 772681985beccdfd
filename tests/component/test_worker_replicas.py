"""The workers of a pool as the replicas of document_processor."""

from __future__ import annotations

import pool_tasks
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.workers import WorkerReplicas
from ragworks.types import Health, Life


async def test_workers_are_shown_with_their_process_and_the_places_that_wait_for_a_document() -> None:
    async with WorkerPool(2) as pool:
        replicas = WorkerReplicas("document_processor", pool, (1, 10), "1", 2**31)
        assert [(one.pid, one.status, one.note) for one in replicas.reports()] == [
            (None, "stopped", "starts with the next document")
        ] * 2
        await pool.run(pool_tasks.echo, 2, limit_s=30, max_memory_bytes=2**31)
        busy, free = replicas.reports()
        assert (busy.pid, busy.status, busy.life, busy.active_connections) == (pool.pids()[0], "healthy", Life.READY, 0)
        assert busy.memory_usage
        assert free.pid is None
        await replicas.scale(1)
        assert (replicas.size, len(replicas.reports())) == (1, 1)
        assert replicas.health() == (Health.HEALTHY, "")
