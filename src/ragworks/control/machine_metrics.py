"""The metrics of the disk and of the server's processes, as they were when somebody last looked."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragworks.control.machine import Machine
from ragworks.control.process_tree import KINDS


class MachineMetrics(Collector):
    """Looks at nothing itself: a look takes milliseconds, in which the event loop would stand still."""

    def __init__(self) -> None:
        self.machine: Machine | None = None

    def collect(self) -> Iterable[Metric]:
        machine = self.machine
        cpu = CounterMetricFamily(
            "rag_process_cpu_seconds",
            "CPU time of the server's processes, of those that are gone, too",
            labels=["kind"],
        )
        memory = GaugeMetricFamily(
            "rag_process_resident_memory_bytes",
            "Resident memory of the server's processes; pages that they share count for each",
            labels=["kind"],
        )
        processes = GaugeMetricFamily("rag_processes", "The server's processes", labels=["kind"])
        disk = GaugeMetricFamily("rag_disk_free_bytes", "Bytes left on the disk of the data folder")
        for kind in KINDS:
            cpu.add_metric([kind], machine.processes.cpu_seconds[kind] if machine else 0.0)
            if machine and (taken := machine.processes.taken.get(kind)):
                memory.add_metric([kind], taken.memory_bytes)
                processes.add_metric([kind], taken.processes)
        if machine and machine.seen.disk_free_bytes is not None:
            disk.add_metric([], machine.seen.disk_free_bytes)
        return cpu, memory, processes, disk
