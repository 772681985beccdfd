"""Replicas that can be told to misbehave, the set that they are picked from, and the balancer over both."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from ragworks.control.balancer import Absence, Balancer, unexplained
from ragworks.control.health_checker import HealthChecker, ProbeSettings
from ragworks.control.replicas import ReplicaSet
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.calling import CallSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.testing import FakeClock, ManualReplica
from ragworks.types import Health


@dataclass
class Recorded:
    """A Record that keeps what it is told."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, action: str, **fields: Any) -> None:
        self.events.append({"action": action, **fields})

    @property
    def actions(self) -> list[str]:
        return [event["action"] for event in self.events]


class Team:
    """Replicas a, b, c … behind a balancer, as a supervisor would keep them; none is ejected without ``ejecting``."""

    def __init__(
        self,
        names: str,
        strategy: str = "round_robin",
        settings: CallSettings | None = None,
        absence: Absence = unexplained,
        ejecting: EjectSettings | None = None,
    ) -> None:
        self.clock, self.recorded = FakeClock(), Recorded()
        self.set = ReplicaSet(
            BalanceSettings(strategy=strategy, slow_start_s=0.0),
            ejecting or EjectSettings(max_ejected_share=0.0),
            Random(7),
            self.recorded,
        )
        self.replicas: dict[str, ManualReplica] = {}
        self.given_up: list[tuple[str, str]] = []
        self.balancer = Balancer(
            "embeddings_service", self.set, self.replicas, self.clock, Random(7), settings, self.recorded, absence
        )
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> ManualReplica:
        return self.replicas[name]

    def add(self, name: str, slots: int = 1) -> ManualReplica:
        self.replicas[name] = ManualReplica(name, self.clock, slots=slots)
        self.set.add(name, self.clock.monotonic(), slots=slots)
        self.balancer.changed()
        return self.replicas[name]

    def remove(self, name: str) -> None:
        self.set.remove(name)
        del self.replicas[name]

    def checker(self, settings: ProbeSettings | None = None, **more: Any) -> HealthChecker:
        """What probes the replicas, not entered yet; those that it gives up are in ``given_up``."""

        async def replace(replica_id: str, reason: str) -> None:
            self.given_up.append((replica_id, reason))

        return HealthChecker(
            "embeddings_service",
            self.set,
            self.replicas,
            self.balancer.traffic,
            self.clock,
            Random(7),
            settings,
            self.recorded,
            replace,
            **more,
        )

    def health(self, name: str) -> Health:
        return next(view.health for view in self.set.views(self.clock.monotonic()) if view.id == name)

    @property
    def active(self) -> int:
        """Calls that the set counts as in flight."""
        return sum(view.active_connections for view in self.set.views(self.clock.monotonic()))

    async def calls(self, count: int) -> set[str]:
        """Who answered so many calls, one after the other."""
        return {await self.balancer.call("name") for _ in range(count)}
