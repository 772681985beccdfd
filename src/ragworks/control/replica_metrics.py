"""The metrics of replicas, read from their balancers at each scrape, so that one that is gone leaves no series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragworks.control.replicas import ReplicaView
from ragworks.control_protocols import Usage
from ragworks.settings import SERVICES
from ragworks.types import Health, Life

COUNTED: Mapping[str, str] = {
    "picks": "Times that a replica was picked for a call",
    "retries": "Calls that were sent again to another replica",
    "hedges": "Slow calls that a second replica was asked for beside the first",
    "steals": "Calls that a replica with a free slot took over from another's queue",
    "ejections": "Outliers that were left out for a while",
    "panics": "Calls that went to a replica that is not well, for want of a better one",
    "rejections": "Calls that were refused because there was no replica",
}
MEASURED: Mapping[str, tuple[str, str]] = {
    "queued": ("rag_service_queue_calls", "Calls that wait for a replica, or at one beyond its slots"),
    "queue_age_s": (
        "rag_service_queue_age_seconds",
        "How long the oldest call that waits has waited; 0 where none does",
    ),
    "service_time_s": (
        "rag_service_call_seconds",
        "What a call of the usual cost takes at the median replica, as learnt",
    ),
    "unit_time_s": (
        "rag_service_unit_seconds",
        "What each further unit of cost (a character for embeddings) adds to that, as learnt",
    ),
}
STATES = (*(str(health) for health in Health), *(str(life) for life in Life if life is not Life.READY))

Stats = Callable[[], Mapping[str, float]]
Views = Callable[[], Sequence[ReplicaView]]
Usages = Callable[[], Mapping[str, Usage]]
Targets = Callable[[], Mapping[str, int]]


def none_known() -> Mapping[str, Usage]:
    """The Usages of replicas whose processes are not ours, or are this one."""
    return {}


class ReplicaMetrics(Collector):
    """Every service is there from the start, at zero; the families of single replicas when there are any."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[Stats, Views, Usages]] = {}
        self.targets: Targets = dict

    def watch(self, service: str, stats: Stats, views: Views, usages: Usages) -> None:
        self._watched[service] = stats, views, usages

    def collect(self) -> Iterable[Metric]:
        stats = {service: dict(read()) for service, (read, _, _) in self._watched.items()}
        views = {service: read() for service, (_, read, _) in self._watched.items()}
        for name, text in COUNTED.items():
            counted = CounterMetricFamily(f"rag_replica_{name}", text, labels=["service"])
            for service in SERVICES:
                counted.add_metric([service], stats.get(service, {}).get(name, 0))
            yield counted
        for name, (family, text) in MEASURED.items():
            gauge = GaugeMetricFamily(family, text, labels=["service"])
            for service, read in stats.items():
                if name in read:  # nothing known is no zero
                    gauge.add_metric([service], read[name])
            yield gauge
        waiting = GaugeMetricFamily("rag_replica_waiting_calls", "Calls that wait for a replica", labels=["service"])
        sizes = GaugeMetricFamily("rag_replicas", "Replicas by how they are", labels=["service", "state"])
        for service in SERVICES:
            waiting.add_metric([service], stats.get(service, {}).get("waiting", 0))
            states = Counter(_state(view) for view in views.get(service, ()))
            for state in STATES:
                sizes.add_metric([service, state], states[state])
        wanted = GaugeMetricFamily(
            "rag_scale_target_replicas",
            "Replicas that there should be, by load, by hand or by setting",
            labels=["service"],
        )
        for service, target in self.targets().items():
            wanted.add_metric([service], target)
        yield from (waiting, sizes, wanted)
        yield from _single(views)
        yield from _usage({service: read() for service, (_, _, read) in self._watched.items()})


def _state(view: ReplicaView) -> str:
    return str(view.health if view.life is Life.READY else view.life)


def _single(views: Mapping[str, Sequence[ReplicaView]]) -> Iterable[Metric]:
    labels = ["service", "replica"]
    active = GaugeMetricFamily("rag_replica_active_calls", "Calls in flight to one replica", labels=labels)
    seconds = GaugeMetricFamily("rag_replica_response_seconds", "Average of its good answers", labels=labels)
    errors = GaugeMetricFamily("rag_replica_error_ratio", "Share of its latest calls that failed", labels=labels)
    queued = GaugeMetricFamily("rag_replica_queue_calls", "Calls sent to one replica beyond its slots", labels=labels)
    age = GaugeMetricFamily(
        "rag_replica_queue_age_seconds", "Since the oldest of them was sent; 0: none", labels=labels
    )
    for service, replicas in views.items():
        for view in replicas:
            if view.waiting is not None:
                queued.add_metric([service, view.id], view.waiting)
            if view.queue_age_s is not None:
                age.add_metric([service, view.id], view.queue_age_s)
            active.add_metric([service, view.id], view.active_connections)
            errors.add_metric([service, view.id], view.error_rate)
            if view.avg_response_time is not None:  # nothing known is no zero
                seconds.add_metric([service, view.id], view.avg_response_time)
    return active, seconds, errors, queued, age


def _usage(usages: Mapping[str, Mapping[str, Usage]]) -> Iterable[Metric]:
    labels = ["service", "replica"]
    cpu = GaugeMetricFamily("rag_replica_cpu_ratio", "Cores that its process keeps busy, lately", labels=labels)
    memory = GaugeMetricFamily("rag_replica_memory_bytes", "Resident memory of its process", labels=labels)
    for service, replicas in usages.items():
        for replica, usage in replicas.items():
            if usage.cpu_percent is not None:
                cpu.add_metric([service, replica], usage.cpu_percent / 100)
            if usage.memory_bytes is not None:
                memory.add_metric([service, replica], usage.memory_bytes)
    return cpu, memory
