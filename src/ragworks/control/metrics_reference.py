"""The page ``docs/reference/metrics.md``."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics_core import Metric

from ragworks.control.histograms import HISTOGRAMS
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics
from ragworks.control.replica_metrics import MEASURED
from ragworks.control.replicas import ReplicaView
from ragworks.control_protocols import Usage
from ragworks.policies.forecasting import Foreseen
from ragworks.settings import SERVICES
from ragworks.types import Health, Life

HEAD = """# Metrics

`GET /metrics` answers in the Prometheus text format, from what the server knows already: it waits for no child process
and no disk. Every family is there from the start, at zero where a zero is true; what is not known has no sample.
Durations are seconds, sizes bytes. Each label has a bounded number of values: `route` is a route's template, `service`,
`action`, `code` and `stage` are lists in the code. The series of a `replica` end with it.

Counters count since the server started, and never go down while it runs, whatever becomes of its child processes. A
batch is counted when its engine answers a call next, so those of a killed engine that it had not told of are lost.
CPU, memory and processes by `kind` and the disk are as orchestration_api saw them last, dead letters and the age of
the queue as document_processor did: both look every five seconds. On Linux there are also the usual `process_…` of
the server's own process.

| Metric | Type | Labels | What it counts |
| --- | --- | --- | --- |
"""
BUCKETS_HEAD = """
## Buckets

| Histogram | Upper bounds of its buckets | What they are for |
| --- | --- | --- |
"""


def page() -> str:
    metrics = _with_everything()
    families = [family for family in metrics.registry.collect() if family.name.startswith("rag_")]
    rows = sorted(_row(family) for family in families)
    shapes = sorted(HISTOGRAMS.items())
    buckets = [f"| `{name}` | {', '.join(f'{one:g}' for one in it.buckets)} | {it.purpose} |" for name, it in shapes]
    return HEAD + "\n".join(rows) + "\n" + BUCKETS_HEAD + "\n".join(buckets) + "\n"


def _row(family: Metric) -> str:
    labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {', '.join(labels) or 'none'} | {family.documentation} |"


def _with_everything() -> Metrics:
    """With a sample in each family, which shows its labels."""
    metrics, service = Metrics(), SERVICES[0]
    one = ReplicaView("one", Life.READY, Health.HEALTHY, 1, 0, 0.1, None, None, 0.0, 1.0, 0, 0.0)
    known = dict.fromkeys(MEASURED, 1.0)
    metrics.watch_replicas(service, lambda: known, lambda: [one], lambda: {"one": Usage(0.0, 0)})
    metrics.watch_targets(lambda: {service: 1})
    metrics.watch_forecasts(lambda: {service: Foreseen(1.0, 1.0, 0.0, 2.0, 0.9, 0.9, 0.1, 0.1)})
    metrics.price(service, "input", 1.0)
    metrics.built("0", 1)
    machine = Machine(Path())
    machine.look()
    metrics.watch_machine(machine)
    return metrics
