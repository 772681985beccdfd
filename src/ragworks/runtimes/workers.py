"""The workers of a pool as the replicas of their service: shown, and made more or fewer."""

from __future__ import annotations

from collections.abc import Mapping

from ragworks.reports import ReplicaReport
from ragworks.runtimes.processes import WorkerPool, WorkerReport
from ragworks.types import Health, Life

UNUSED = "starts with the next document"


class WorkerReplicas:
    """``pool`` is opened and closed by whoever made it; ``bounds`` are the fewest and the most workers."""

    balanced = False  # each takes the next document when it is free

    def __init__(
        self,
        service: str,
        pool: WorkerPool,
        bounds: tuple[int, int],
        memory_bytes: int,
        *,
        implementation: str = "default",
        version: str = "1",
    ) -> None:
        self.bounds = bounds
        self._service, self._pool, self._memory_bytes = service, pool, memory_bytes
        self._implementation, self._version = implementation, version

    @property
    def size(self) -> int:
        return self._pool.size

    async def start(self) -> None:
        """Nothing: a worker starts with the document that needs it."""

    async def stop(self) -> None:
        """Nothing: the service has drained, and the pool ends with the server."""

    async def scale(self, instances: int) -> None:
        await self._pool.resize(instances)

    def health(self) -> tuple[Health, str]:
        """A worker that fails is replaced, and costs its document an attempt; the service lives on."""
        return Health.HEALTHY, ""

    def hopeful(self) -> bool:
        return True

    def reports(self) -> tuple[ReplicaReport, ...]:
        """Those that are alive, then the places whose worker is still to be started."""
        alive = sorted(self._pool.workers(), key=lambda worker: worker.pid)
        free = range(len(alive), self.size)
        return (
            *(self._report(worker, at >= self.size) for at, worker in enumerate(alive)),
            *(self._unused(at) for at in free),
        )

    def stats(self) -> Mapping[str, float]:
        return self._pool.stats()

    def _unused(self, at: int) -> ReplicaReport:
        return ReplicaReport(
            f"{self._service}-{at}",
            None,
            Life.STOPPED,
            self._version,
            implementation=self._implementation,
            life=Life.STOPPED,
            note=UNUSED,
        )

    def _report(self, worker: WorkerReport, surplus: bool) -> ReplicaReport:
        life, memory = Life.DRAINING if surplus else Life.READY, worker.usage.memory_bytes
        return ReplicaReport(
            f"{self._service}-{worker.pid}",
            worker.pid,
            life if surplus else Health.HEALTHY,
            self._version,
            implementation=self._implementation,
            active_connections=int(worker.busy),
            cpu_usage=worker.usage.cpu_percent,
            memory_usage=None if memory is None else 100.0 * memory / self._memory_bytes,
            life=life,
        )
