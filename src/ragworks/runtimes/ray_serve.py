"""Services as Ray Serve deployments: what each replica runs, and how the rest of ragworks calls it.

A service knows nothing of Ray, and Ray nothing of its verbs: those travel by name. ``ray_router.py`` is the other half.
"""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import psutil
from ray import serve
from ray.serve.config import RequestRouterConfig

from ragworks.control_protocols import ReplicaSpec
from ragworks.errors import RagworksError
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.calling import Fault, classify
from ragworks.policies.ejecting import EjectSettings
from ragworks.runtimes.ray_router import BalancedRouter, Table
from ragworks.runtimes.verbs import translated, verb_of

INITIALIZE_ATTEMPTS = 2
"""A replica whose ``initialize`` raises is tried once more, perhaps on another node, before the deployment fails."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How callers choose among the replicas. ``table`` makes ``control.replicas.ReplicaSet`` or what does its work; it
    is called by its name in every process that calls the service, so it must be importable there.

    ``slots`` is how many calls a replica works on at once; its own figures reach the callers every ``report_s``.
    """

    table: Callable[[BalanceSettings, EjectSettings, Random], Table]
    balance: BalanceSettings = field(default_factory=BalanceSettings)
    ejecting: EjectSettings = field(default_factory=EjectSettings)
    slots: int = 1
    report_s: float = 1.0


def application(
    spec: ReplicaSpec,
    replicas: int,
    routing: Routing | None = None,
    *,
    max_calls: int = 64,
    drain_s: float = 20.0,
    actor_options: Mapping[str, Any] | None = None,
) -> serve.Application:
    """The service of ``spec`` for ``serve.run``: a replica is a process that is running once ``initialize`` returned.

    A replica takes ``max_calls`` at once, and callers keep the rest. ``actor_options`` are Ray's, such as ``num_cpus``.
    Without ``routing`` Ray Serve chooses among the replicas as it does by default.
    """
    deployment = serve.deployment(Hosted).options(
        name=spec.service,
        num_replicas=replicas,
        max_ongoing_requests=max_calls,
        graceful_shutdown_timeout_s=drain_s,
        graceful_shutdown_wait_loop_s=min(1.0, drain_s),
        max_constructor_retry_count=INITIALIZE_ATTEMPTS * replicas,
        ray_actor_options=dict(actor_options or {}),
        request_router_config=_router(routing) if routing else RequestRouterConfig(),
    )
    return deployment.bind(spec)


def _router(routing: Routing) -> RequestRouterConfig:
    return RequestRouterConfig(
        request_router_class=f"{BalancedRouter.__module__}:{BalancedRouter.__qualname__}",
        request_router_kwargs={  # JSON, by Ray's rule
            "table": f"{routing.table.__module__}:{routing.table.__qualname__}",
            "balance": asdict(routing.balance),
            "ejecting": asdict(routing.ejecting),
            "slots": routing.slots,
        },
        request_routing_stats_period_s=routing.report_s,
    )


class Hosted:
    """What a Serve replica runs: one service, its verbs by name, and the figures that routers cannot know.

    Ray's own ``check_health`` is not defined on purpose: Ray replaces a replica that fails it, which mends no endpoint
    that is down. Ray still replaces a replica that has died or no longer answers.
    """

    async def __init__(self, spec: ReplicaSpec) -> None:  # type: ignore[misc]  # Ray awaits it
        self._service = spec.factory(*spec.arguments)
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here
        self._served = self._failed = 0
        await self._service.initialize()

    async def __del__(self) -> None:  # Ray awaits it, after the replica's calls have ended
        await self._service.shutdown()

    async def call(
        self, verb: str, arguments: tuple[Any, ...], named: dict[str, Any], cost: float | None = None
    ) -> Any:
        """``cost`` is for the router, which sees the arguments."""
        try:
            with self._counted():
                answer = verb_of(self._service, verb)(*arguments, **named)
                return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # whatever it is, the caller shall hear of it
            return Raised.of(error)

    async def stream(
        self, verb: str, arguments: tuple[Any, ...], named: dict[str, Any], cost: float | None = None
    ) -> AsyncIterator[Any]:
        try:
            with self._counted():
                async with contextlib.aclosing(verb_of(self._service, verb)(*arguments, **named)) as items:
                    async for item in items:
                        yield item
        except Exception as error:
            yield Raised.of(error)

    async def record_routing_stats(self) -> dict[str, Any]:
        """By Ray's name for it: what every caller's router hears."""
        health = await self._service.check_health()
        return {
            "health": health.status.value,
            "served": self._served,
            "failed": self._failed,
            "cpu_percent": self._process.cpu_percent(),
            "memory_percent": self._process.memory_percent(),
        }

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed += classify(error) is not Fault.NONE
            raise
        finally:
            self._served += 1


@dataclass(frozen=True, slots=True)
class Raised:
    """An error as it travels: Ray would make another class of it, and call its constructor with what is no argument."""

    kind: type[RagworksError]
    arguments: tuple[Any, ...]
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: Exception) -> Raised:
        ours = translated(error)
        raised = cls(type(ours), ours.args, dict(vars(ours)))
        try:
            pickle.dumps(raised)
        except Exception:  # a field that cannot travel must not hide the message
            return cls(RagworksError, (f"{type(error).__name__}: {error}",), {})
        return raised
