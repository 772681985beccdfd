"""Start, failure, retry, health and stop of services, on a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.errors import InvalidInput, ModelMissing, NotReady, ServiceNotFound
from ragworks.policies import restarting
from ragworks.reports import ReplicaReport
from ragworks.testing import FakeClock
from ragworks.types import Health, ServiceHealth


class Recorded:
    """A service that writes down what happens to it, and fails to start ``failures`` times."""

    def __init__(self, name: str, journal: list[str], failures: int = 0) -> None:
        self.name, self.journal, self.failures = name, journal, failures
        self.health: ServiceHealth | Exception = ServiceHealth(name, Health.HEALTHY)

    async def initialize(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError(f"{self.name} cannot")
        self.journal.append(f"+{self.name}")

    async def shutdown(self) -> None:
        self.journal.append(f"-{self.name}")

    async def check_health(self) -> ServiceHealth:
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def stats(self) -> Mapping[str, Any]:
        return {"seen": True}


@asynccontextmanager
async def running(
    clock: FakeClock, **failures: int
) -> AsyncIterator[tuple[Orchestrator, dict[str, Recorded], list[str]]]:
    journal: list[str] = []
    names = ("vector_store", "embeddings_service", "document_processor", "retrieval_service")
    made = {name: Recorded(name, journal, failures.get(name, 0)) for name in names}
    needs = {"document_processor": ("vector_store", "embeddings_service"), "retrieval_service": ("vector_store",)}
    registry = {name: Registration(service, needs.get(name, ())) for name, service in made.items()}
    orchestrator = Orchestrator(registry, clock, Random(0))
    yield orchestrator, made, journal
    await orchestrator.stop()


async def test_services_start_in_order_and_stop_in_reverse() -> None:
    async with running(FakeClock()) as (orchestrator, made, journal):
        result = await orchestrator.start_services()
        assert result["services_started"] == list(made)
        assert orchestrator.ready() == (True, {})
        await orchestrator.stop()
        assert journal[4:] == [f"-{name}" for name in reversed(made)]
        await orchestrator.stop()
        assert len(journal) == 8


async def test_when_one_fails_its_dependents_wait_and_say_for_what_and_the_rest_serves() -> None:
    """A start that goes on past a failed dependency was one of the first sketch's mistakes."""
    async with running(FakeClock(), embeddings_service=1) as (orchestrator, _, journal):
        result = (await orchestrator.start_services())["startup_results"]
        assert result["embeddings_service"] == {
            "status": "failed",
            "healthy": False,
            "error": "embeddings_service cannot",
        }
        assert result["document_processor"]["status"] == "waiting"
        assert "+document_processor" not in journal
        ready, why = orchestrator.ready()
        assert ready
        assert why["document_processor"] == "waiting for embeddings_service"
        with pytest.raises(NotReady, match="waiting for embeddings_service"):
            orchestrator.require("document_processor")
        orchestrator.require("retrieval_service")


async def test_a_failed_service_is_tried_again_until_it_is_up_and_its_dependents_follow() -> None:
    clock = FakeClock()
    async with running(clock, vector_store=3) as (orchestrator, _, journal):
        await orchestrator.start_services()
        assert not orchestrator.ready()[0]
        await clock.advance(30)
        assert orchestrator.ready() == (True, {})
        ups = [entry for entry in journal if entry.startswith("+")]
        assert ups == ["+embeddings_service", "+vector_store", "+document_processor", "+retrieval_service"]
        assert journal.count("-vector_store") == 3  # what half started is let go before the next attempt


async def test_health_is_watched_and_a_check_that_raises_is_unhealthy() -> None:
    clock = FakeClock()
    async with running(clock) as (orchestrator, made, _):
        await orchestrator.start_services()
        made["vector_store"].health = RuntimeError("gone")
        await clock.advance(6)
        reports = {report.name: report for report in await orchestrator.services()}
        store = reports["vector_store"]
        assert store.health
        assert store.health.status == Health.UNHEALTHY
        assert "gone" in store.health.details["reason"]
        assert store.replicas[0].status == "unhealthy"
        assert reports["retrieval_service"].stats == {"seen": True}


async def test_a_service_that_was_not_asked_for_is_named_as_such() -> None:
    async with running(FakeClock()) as (orchestrator, _, _), _started(orchestrator):
        with pytest.raises(NotReady, match=r"not among server\.services"):
            orchestrator.require("generation_service")


class Copies:
    """Replicas of a service that write down what is asked of them, and fail to start ``failures`` times."""

    balanced, bounds = True, (1, 4)

    def __init__(self, journal: list[str], failures: int = 0) -> None:
        self.journal, self.failures, self.size = journal, failures, 1
        self.state = (Health.HEALTHY, "")

    async def start(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ModelMissing("install it")
        self.journal.append("+copies")

    async def stop(self) -> None:
        self.journal.append("-copies")

    async def scale(self, instances: int) -> None:
        self.size = instances

    def health(self) -> tuple[Health, str]:
        return self.state

    def hopeful(self) -> bool:
        return self.state[0] is not Health.UNHEALTHY

    def reports(self) -> tuple[ReplicaReport, ...]:
        return tuple(ReplicaReport(f"copy-{n}", n, "healthy", "1") for n in range(self.size))

    def stats(self) -> Mapping[str, float]:
        return {"queued": 3}


@asynccontextmanager
async def with_copies(clock: FakeClock, failures: int = 0) -> AsyncIterator[tuple[Orchestrator, Copies, Journals]]:
    """Two services, of which the second stands on replicas and the third on the second."""
    journal: list[str] = []
    copies, told = Copies(journal, failures), Journals()
    registry = {
        "vector_store": Registration(Recorded("vector_store", journal), inline_because="it owns the folder"),
        "embeddings_service": Registration(Recorded("embeddings_service", journal), replicas=copies),
        "document_processor": Registration(Recorded("document_processor", journal), needs=("embeddings_service",)),
    }
    orchestrator = Orchestrator(registry, clock, Random(0), told.of)
    await orchestrator.start_services()
    yield orchestrator, copies, told
    await orchestrator.stop()


class Journals:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def of(self, service: str) -> Any:
        return lambda action, **fields: self.events.append((service, action, fields))

    def named(self, action: str) -> list[dict[str, Any]]:
        return [fields for _, found, fields in self.events if found == action]


async def test_replicas_are_ready_before_their_service_starts_and_go_after_it() -> None:
    async with with_copies(FakeClock()) as (orchestrator, copies, _):
        assert copies.journal == ["+vector_store", "+copies", "+embeddings_service", "+document_processor"]
        await orchestrator.stop()
        assert copies.journal[4:] == ["-document_processor", "-embeddings_service", "-copies", "-vector_store"]


async def test_what_start_services_returns_is_what_happened() -> None:
    async with with_copies(FakeClock()) as (orchestrator, _, _):
        found = await Orchestrator(orchestrator.registry, FakeClock(), Random(0)).start_services()
        assert found == {
            "startup_results": {
                name: {"status": "started", "healthy": True, "error": None} for name in orchestrator.registry
            },
            "services_started": list(orchestrator.registry),
            "load_balancer_configured": True,
            "health_monitoring_active": True,
        }


async def test_a_service_whose_replicas_do_not_start_is_retried_by_a_policy_that_can_be_asked_again() -> None:
    clock = FakeClock()
    async with with_copies(clock, failures=20) as (orchestrator, _, told):
        ready, why = orchestrator.ready()
        assert (ready, why["embeddings_service"]) == (False, "install it")
        assert why["retrieval_service"] == "not among server.services of this server"
        assert why["document_processor"] == "waiting for embeddings_service"
        await clock.advance(1000)
        assert orchestrator.up("document_processor")
        failures = told.named("service_failed")
        assert len(failures) == 20
        for one in failures:
            inputs = {**one["inputs"], "rng": Random(one["inputs"]["rng"])}
            assert restarting.decide(**inputs) == one["decision"]
        assert failures[-1]["decision"].crash_loop
        assert "install it" in failures[-1]["reason"]


async def test_a_service_that_is_unhealthy_after_its_start_has_not_started() -> None:
    """Else its dependents would start on it."""
    clock = FakeClock()
    async with running(clock) as (orchestrator, made, journal):
        made["vector_store"].health = ServiceHealth("vector_store", Health.UNHEALTHY, details={"reason": "no disk"})
        result = (await orchestrator.start_services())["startup_results"]
        assert result["vector_store"]["status"] == "failed"
        assert result["vector_store"]["error"] == "vector_store started, but is not healthy: no disk"
        assert "+retrieval_service" not in journal
        made["vector_store"].health = ServiceHealth("vector_store", Health.HEALTHY)
        await clock.advance(40)
        assert orchestrator.ready() == (True, {})


async def test_a_service_is_as_well_as_the_worse_of_itself_and_its_replicas() -> None:
    clock = FakeClock()
    async with with_copies(clock) as (orchestrator, copies, told):
        copies.state = (Health.DEGRADED, "1 of 2 replicas are well")
        report = (await orchestrator.services())[1]
        assert report.health
        assert (report.health.status, report.health.details["reason"]) == (Health.DEGRADED, "1 of 2 replicas are well")
        assert orchestrator.serving("embeddings_service")
        copies.state = (Health.UNHEALTHY, "crash looping")
        await clock.advance(6)
        assert not orchestrator.serving("embeddings_service")
        assert orchestrator.up("embeddings_service")
        assert [one["decision"]["health"] for one in told.named("health_changed")][-2:] == ["degraded", "unhealthy"]


async def test_a_report_says_what_the_replicas_of_a_service_are_called_for_and_nothing_where_it_has_none() -> None:
    async with with_copies(FakeClock()) as (orchestrator, _, _):
        reports = {one.name: one.calls for one in await orchestrator.services()}
        assert reports == {"vector_store": None, "embeddings_service": {"queued": 3}, "document_processor": None}


async def test_scaling_by_hand_keeps_the_bounds_and_says_who_cannot() -> None:
    async with with_copies(FakeClock()) as (orchestrator, copies, told):
        await orchestrator.scale("embeddings_service", 3, "by hand")
        assert [one.id for one in orchestrator.report("embeddings_service").replicas] == ["copy-0", "copy-1", "copy-2"]
        assert told.named("scaled") == [{"reason": "by hand", "inputs": {"instances": 1}, "decision": {"instances": 3}}]
        for wrong in (0, 5):
            with pytest.raises(InvalidInput, match=rf"must be from 1 to 4 .*, found {wrong}"):
                await orchestrator.scale("embeddings_service", wrong, "by hand")
        with pytest.raises(InvalidInput, match=r"vector_store has one replica.*: it owns the folder"):
            await orchestrator.scale("vector_store", 2, "by hand")
        with pytest.raises(ServiceNotFound, match="there is no service 'embedings'"):
            await orchestrator.scale("embedings", 2, "by hand")
        assert copies.size == 3


@asynccontextmanager
async def _started(orchestrator: Orchestrator) -> AsyncIterator[None]:
    await orchestrator.start_services()
    yield
