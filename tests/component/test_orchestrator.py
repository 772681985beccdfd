"""Start, failure, retry, health and stop of services, on a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.errors import NotReady
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


@asynccontextmanager
async def _started(orchestrator: Orchestrator) -> AsyncIterator[None]:
    await orchestrator.start_services()
    yield
