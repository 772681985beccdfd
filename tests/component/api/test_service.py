from __future__ import annotations

from ragworks.api.service import LIMITS, REMEMBERED, WAKE_EVERY_S, OrchestrationApi
from ragworks.policies.health import MachineSeen
from ragworks.testing import FakeClock
from ragworks.types import Health


class LateClock(FakeClock):
    """Wakes its sleepers ``late_s`` after their time."""

    late_s = 0.0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + self.late_s)


async def test_the_lateness_of_wake_ups_is_measured_and_told() -> None:
    clock, told = LateClock(), list[float]()
    service = OrchestrationApi(clock, told.append)
    await service.initialize()
    await clock.advance(WAKE_EVERY_S)
    clock.late_s = 0.05
    await clock.advance(2 * WAKE_EVERY_S + 0.1)
    await service.shutdown()
    assert max(told) == service.stats()["worst_loop_lag_s"]
    assert abs(max(told) - 0.05) < 1e-6
    assert (await service.check_health()).service_name == "orchestration_api"


async def test_a_stalled_loop_is_degraded_then_unhealthy_then_forgotten() -> None:
    clock = LateClock()
    service = OrchestrationApi(clock)
    await service.initialize()
    assert (await service.check_health()).status is Health.HEALTHY
    for late_s, status in (
        (LIMITS.degraded_lag_s + 0.01, Health.DEGRADED),
        (LIMITS.unhealthy_lag_s + 0.01, Health.UNHEALTHY),
    ):
        clock.late_s = late_s
        await clock.advance(2 * (WAKE_EVERY_S + late_s))
        assert (await service.check_health()).status is status
    clock.late_s = 0.0
    await clock.advance((REMEMBERED + 8) * WAKE_EVERY_S)
    assert (await service.check_health()).status is Health.HEALTHY
    await service.shutdown()


async def test_a_service_that_was_shut_down_is_not_healthy_and_may_be_shut_down_again() -> None:
    service = OrchestrationApi(FakeClock())
    await service.initialize()
    await service.shutdown()
    await service.shutdown()
    assert (await service.check_health()).status is Health.UNHEALTHY


async def test_a_disk_that_is_nearly_full_degrades_the_server_with_the_number_and_what_to_do() -> None:
    seen = MachineSeen(disk_free_bytes=300 * 1024**2, disk_total_bytes=100 * 1024**3)
    service = OrchestrationApi(FakeClock(), look=lambda: seen)
    await service.initialize()
    found = await service.check_health()
    await service.shutdown()
    assert found.status is Health.DEGRADED
    assert found.details["disk_free_bytes"] == 300 * 1024**2
    assert found.details["reason"] == (
        "300 MiB of 102400 MiB are left on the disk of the data folder; free space, or documents will be refused"
    )
