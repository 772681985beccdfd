"""How services and their replicas stand, as ``/v1/services`` and ``status`` show it. Values like those of types.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragworks.types import Life, ServiceHealth


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica of a service, as ``status`` shows it; None where nothing is measured or it is not known.

    ``status`` is its health while it serves, else its ``life``. Response times are in seconds, p50 and p95 of its last
    good answers, ``error_rate`` a share from 0 to 1, usage in per cent of what it may use. ``queue_size`` calls wait at
    it for a slot, the oldest for ``queue_age_s``. ``note`` says why it is not as it should be.
    """

    id: str
    pid: int | None
    status: str
    version: str
    active_connections: int | None = None
    avg_response_time: float | None = None
    p50_response_time: float | None = None
    p95_response_time: float | None = None
    queue_size: int | None = None
    queue_age_s: float | None = None
    error_rate: float | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    life: Life | None = None
    implementation: str = "default"
    note: str = ""


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """One service: its state in the start-up, health, replicas, own statistics, those of the ``calls`` to replicas."""

    name: str
    status: str
    error: str | None
    waiting_for: tuple[str, ...]
    health: ServiceHealth | None
    replicas: tuple[ReplicaReport, ...]
    stats: Mapping[str, Any]
    scaling: Mapping[str, Any] | None = None
    calls: Mapping[str, float] | None = None
