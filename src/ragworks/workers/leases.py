"""Keeps the leases of the attempts that are alive, and ends those that are not."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from ragworks.policies.leasing import Verdict, judge
from ragworks.protocols import Clock
from ragworks.storage_protocols import JobQueue
from ragworks.workers.attempt import Attempt

log = structlog.get_logger("ragworks.jobs")

RENEWALS = 3  # in the time of one lease, so that one that fails costs nothing


class LeaseKeeper:
    """Watches ``attempts``, a mapping that its owner changes. ``run`` ends when it is cancelled."""

    def __init__(self, queue: JobQueue, attempts: Mapping[str, Attempt], *, lease_s: float, clock: Clock) -> None:
        self._queue, self._attempts, self._lease_s, self._clock = queue, attempts, lease_s, clock

    async def run(self) -> None:
        while True:
            await self._clock.sleep(self._lease_s / RENEWALS)
            try:
                await self.keep()
            except Exception as error:  # whatever the database says, the next renewal may succeed
                log.error("leases_not_renewed", action="leases_not_renewed", error=repr(error))

    async def keep(self) -> None:
        """Judge every attempt; renew the living in one transaction, end the dead and those whose lease was lost."""
        now = self._clock.monotonic()
        living = [attempt for attempt in list(self._attempts.values()) if self._alive(attempt, now)]
        if living:
            lost = await self._queue.renew([attempt.task for attempt in living])
            for attempt in living:
                if attempt.task.id in lost and attempt.job:
                    attempt.job.cancel()

    def _alive(self, attempt: Attempt, now: float) -> bool:
        judgement = judge(self._lease_s, attempt.seen(), now)
        if judgement.verdict != attempt.verdict:
            attempt.verdict = judgement.verdict
            if judgement.verdict != Verdict.FINE:
                log.warning(
                    "attempt_judged",
                    action="attempt_judged",
                    job_id=attempt.task.job_id,
                    task_id=attempt.task.id,
                    document_id=attempt.task.document_id,
                    verdict=judgement.verdict,
                    stage=attempt.stage,
                    reason=judgement.reason,
                )
        if not judgement.renewed and attempt.job:
            attempt.stalled = judgement.reason
            attempt.job.cancel()
        return judgement.renewed
