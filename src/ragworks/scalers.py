"""What scales the services of an App: the rule and the meter of each."""

from __future__ import annotations

from ragworks.control.autoscaler import Autoscaler
from ragworks.control.group import Group
from ragworks.control.load_meter import LoadMeter
from ragworks.control.replicas import ReplicaView
from ragworks.control.traffic import Traffic
from ragworks.control_protocols import Record
from ragworks.protocols import Clock
from ragworks.reports import ReplicaReport
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.workers import WorkerReplicas
from ragworks.settings_scaling import ScalingSettings, spec
from ragworks.types import Health, Life


def engines_scaler(
    settings: ScalingSettings, group: Group, threads: int, cores: int, clock: Clock, record: Record
) -> Autoscaler | None:
    """For replicas of ``threads`` threads each, on so many cores; None where there is nothing to scale.

    As many as the settings start are fed, whatever the cores: somebody wants them.
    """
    if not _scaled(settings, group.bounds):
        return None
    fed = max(cores // threads, group.settings.instances)
    meter = LoadMeter(
        lambda now: group.balancer.views(),
        group.balancer.traffic,
        lambda: int(group.balancer.stats()["waiting"]),
    )
    return Autoscaler(group.spec.service, spec(settings, group.bounds, fed), group, meter, clock, record)


def workers_scaler(
    service: str,
    settings: ScalingSettings,
    workers: WorkerReplicas,
    pool: WorkerPool,
    cores: int,
    clock: Clock,
    record: Record,
) -> Autoscaler | None:
    """For worker processes: reads that wait for one are what more of them could serve. A document that waits for its
    vectors, or for its turn, could not be."""
    if not _scaled(settings, workers.bounds):
        return None
    fed = max(1, cores - 1, pool.size)
    return Autoscaler(service, spec(settings, workers.bounds, fed), workers, _meter(workers, pool), clock, record)


def _scaled(settings: ScalingSettings, bounds: tuple[int, int]) -> bool:
    return settings.enabled and bounds[0] < bounds[1]


def _meter(workers: WorkerReplicas, pool: WorkerPool) -> LoadMeter:
    def views(now: float) -> list[ReplicaView]:
        return [_place(at, report) for at, report in enumerate(workers.reports())]

    def traffic(place: str) -> Traffic:
        # Workers come and go, and their calls are counted together: the first place, which is always there, has them.
        counts = pool.stats()
        crashed = counts["crashed"]
        ended = counts["completed"] + counts["failed"] + counts["timed_out"] + counts["over_memory"] + crashed
        return Traffic(ended, crashed, pool.call_seconds) if place == "0" else Traffic()

    return LoadMeter(views, traffic, lambda: pool.stats()["waiting"])


def _place(at: int, report: ReplicaReport) -> ReplicaView:
    """A place whose worker is still to be started takes nothing."""
    unused = report.life is Life.STOPPED
    life = Life.DRAINING if report.life is Life.DRAINING else Life.READY
    return ReplicaView(
        id=str(at),
        life=life,
        health=Health.HEALTHY,
        slots=1,
        active_connections=report.active_connections or 0,
        avg_response_time=None,
        cpu_usage=0.0 if unused else report.cpu_usage,
        memory_usage=0.0 if unused else report.memory_usage,
        error_rate=0.0,
        pace=1.0,
    )
