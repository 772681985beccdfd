"""The metrics of what a service counts itself, read from its ``stats`` at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragworks.control.replica_metrics import Stats


@dataclass(frozen=True, slots=True)
class Kept:
    """A family, and where it is in the ``stats`` of ``service``: one key, or one for each value of ``label``."""

    service: str
    name: str
    text: str
    keys: Mapping[str, str]
    label: str = ""
    counter: bool = False


EMBEDDINGS, DOCUMENTS = "embeddings_service", "document_processor"
FAMILIES = (
    Kept(
        EMBEDDINGS, "rag_cache_hits", "Vectors found in a cache tier",
        {"memory": "memory_hits", "stored": "stored_hits"}, "tier", counter=True,
    ),
    Kept(EMBEDDINGS, "rag_cache_misses", "Vectors that the model had to compute", {"": "model_texts"}, counter=True),
    Kept(
        EMBEDDINGS, "rag_cache_evictions", "Vectors that left memory for want of room", {"": "evictions"}, counter=True
    ),
    Kept(EMBEDDINGS, "rag_cache_entries", "Vectors in memory", {"": "cached"}),
    Kept(DOCUMENTS, "rag_queue_size", "Documents that wait or run", {"": "queue_size"}),
    Kept(DOCUMENTS, "rag_queue_bytes", "Bytes of the documents that wait or run", {"": "queue_bytes"}),
    Kept(DOCUMENTS, "rag_queue_oldest_seconds", "Age of the oldest document that waits", {"": "oldest_waiting_s"}),
    Kept(DOCUMENTS, "rag_dead_letters", "Failed documents that wait for `jobs retry`", {"": "dead_letters"}),
)  # fmt: skip


class StatsMetrics(Collector):
    """A service that is not watched has zeros; what it says is None has no sample."""

    def __init__(self) -> None:
        self._watched: dict[str, Stats] = {}

    def watch(self, service: str, stats: Stats) -> None:
        self._watched[service] = stats

    def collect(self) -> Iterable[Metric]:
        stats = {service: dict(read()) for service, read in self._watched.items()}
        for one in FAMILIES:
            found, labels = stats.get(one.service, {}), [one.label] if one.label else []
            kind = CounterMetricFamily if one.counter else GaugeMetricFamily
            family = kind(one.name, one.text, labels=labels)
            for value, key in one.keys.items():
                if (number := found.get(key, 0)) is not None:
                    family.add_metric([value] if labels else [], number)
            yield family
