from __future__ import annotations

import platform
from pathlib import Path

from ragworks.control.histograms import HISTOGRAMS
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics, codes
from ragworks.control_protocols import Usage
from ragworks.policies.ejecting import EjectSettings
from ragworks.policies.forecasting import Foreseen
from ragworks.types import Health, Stage
from team import Team

NOTHING_KNOWN = {
    "rag_replica_active_calls",
    "rag_replica_response_seconds",
    "rag_replica_error_ratio",
    "rag_replica_queue_calls",
    "rag_replica_queue_age_seconds",
    "rag_service_queue_calls",
    "rag_service_queue_age_seconds",
    "rag_service_call_seconds",
    "rag_service_unit_seconds",
    "rag_replica_cpu_ratio",
    "rag_replica_memory_bytes",
    "rag_scale_target_replicas",
    "rag_forecast_calls",
    "rag_forecast_ahead_seconds",
    "rag_forecast_covered_ratio",
    "rag_forecast_error_calls",
    "rag_process_resident_memory_bytes",
    "rag_processes",
    "rag_disk_free_bytes",
    "rag_cost_total",
}


def lines(metrics: Metrics) -> list[str]:
    return metrics.render().decode().splitlines()


def test_every_family_has_a_sample_at_zero_from_the_start() -> None:
    metrics = Metrics()
    families = {line.split()[2] for line in lines(metrics) if line.startswith("# TYPE rag_")}
    samples = [line for line in lines(metrics) if not line.startswith("#")]
    assert families >= NOTHING_KNOWN
    for family in families - NOTHING_KNOWN:
        own = [line for line in samples if line.startswith(family)]
        assert own, family
        assert all(line.endswith(" 0.0") for line in own), family


def test_what_is_reported_is_counted() -> None:
    metrics = Metrics()
    metrics.stage(Stage.PARSING, 0.2)
    metrics.document("completed")
    metrics.watch_stats("embeddings_service", lambda: {"memory_hits": 3, "stored_hits": 2, "model_texts": 1})
    metrics.batch(500, 0.2)
    metrics.batch(None, 0.1)
    metrics.embedding_call("passage", 0.1)
    metrics.search({"embed": 0.01, "total": 0.02})
    metrics.answer("abstained")
    metrics.citations(2, 1)
    metrics.error("queue_full")
    metrics.loop_lag(0.002)
    metrics.event("document_processor", "refused")
    assert {
        'rag_stage_duration_seconds_sum{stage="parsing"} 0.2',
        'rag_documents_total{outcome="completed"} 1.0',
        'rag_cache_hits_total{tier="memory"} 3.0',
        'rag_cache_hits_total{tier="stored"} 2.0',
        "rag_embedding_batches_total 2.0",
        "rag_embedding_batch_tokens_count 1.0",
        'rag_tokens_total{kind="input",service="embeddings_service"} 500.0',
        "rag_cache_misses_total 1.0",
        'rag_embedding_duration_seconds_count{kind="passage"} 1.0',
        "rag_searches_total 1.0",
        'rag_search_step_duration_seconds_sum{step="total"} 0.02',
        'rag_answers_total{outcome="abstained"} 1.0',
        'rag_citations_total{outcome="removed"} 1.0',
        'rag_errors_total{code="queue_full"} 1.0',
        "rag_loop_lag_seconds_count 1.0",
        'rag_events_total{action="refused",service="document_processor"} 1.0',
    } <= set(lines(metrics))


def test_live_state_is_read_when_it_is_scraped() -> None:
    metrics, size = Metrics(), [2.0]
    metrics.watch_stats("document_processor", lambda: {"queue_size": size[0], "dead_letters": None})
    metrics.watch_service("vector_store", lambda: 1)
    assert "rag_queue_size 2.0" in lines(metrics)
    assert not any(line.startswith("rag_dead_letters") for line in lines(metrics))
    assert 'rag_service_up{service="vector_store"} 1.0' in lines(metrics)
    size[0] = 5
    assert "rag_queue_size 5.0" in lines(metrics)


def test_two_sets_of_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.search({})
    assert "rag_searches_total 0.0" in lines(second)


def test_every_error_code_is_a_label_from_the_start() -> None:
    shown = "\n".join(lines(Metrics()))
    assert all(f'rag_errors_total{{code="{code}"}}' in shown for code in codes())
    assert {"queue_full", "internal_error", "unsupported_format"} <= set(codes())


async def test_replicas_are_counted_and_their_series_end_with_them(trio: Team) -> None:
    metrics = Metrics()
    metrics.watch_replicas("embeddings_service", trio.balancer.stats, trio.balancer.views)
    trio["b"].fail()
    await trio.calls(9)
    trio.set.note_health("c", Health.DEGRADED, 0.0)
    assert {
        'rag_replicas{service="embeddings_service",state="healthy"} 2.0',
        'rag_replicas{service="embeddings_service",state="degraded"} 1.0',
        'rag_replicas{service="vector_store",state="healthy"} 0.0',
        f'rag_replica_retries_total{{service="embeddings_service"}} {trio.balancer.stats()["retries"]:.1f}',
        'rag_replica_error_ratio{replica="b",service="embeddings_service"} 1.0',
        'rag_replica_active_calls{replica="a",service="embeddings_service"} 0.0',
        'rag_replica_queue_calls{replica="a",service="embeddings_service"} 0.0',
        'rag_replica_queue_age_seconds{replica="a",service="embeddings_service"} 0.0',
        'rag_service_queue_calls{service="embeddings_service"} 0.0',
        'rag_service_queue_age_seconds{service="embeddings_service"} 0.0',
    } <= set(lines(metrics))
    assert not any("response_seconds" in line and 'replica="b"' in line for line in lines(metrics))
    trio.remove("b")
    assert not any('replica="b"' in line for line in lines(metrics))


async def test_what_a_replica_takes_is_shown_where_it_is_known_and_only_there(trio: Team) -> None:
    metrics = Metrics()
    trio["a"].used, trio["b"].used = Usage(150.0, 300 * 1024**2), Usage(None, 1000)  # c shares a process

    def usages() -> dict[str, Usage]:
        return {name: one.usage() for name, one in trio.replicas.items()}

    metrics.watch_replicas("embeddings_service", trio.balancer.stats, trio.balancer.views, usages)
    shown = [
        line for line in lines(metrics) if line.startswith(("rag_replica_cpu_ratio{", "rag_replica_memory_bytes{"))
    ]
    assert shown == [
        'rag_replica_cpu_ratio{replica="a",service="embeddings_service"} 1.5',
        'rag_replica_memory_bytes{replica="a",service="embeddings_service"} 3.145728e+08',
        'rag_replica_memory_bytes{replica="b",service="embeddings_service"} 1000.0',
    ]
    trio.remove("a")
    assert not any('replica="a"' in line for line in lines(metrics))


def test_how_many_replicas_there_should_be_is_shown_for_who_has_some() -> None:
    metrics = Metrics()
    metrics.watch_targets(lambda: {"embeddings_service": 3})
    assert [line for line in lines(metrics) if line.startswith("rag_scale_target_replicas{")] == [
        'rag_scale_target_replicas{service="embeddings_service"} 3.0'
    ]


def test_what_load_is_expected_is_shown_with_what_came_of_earlier_forecasts() -> None:
    metrics = Metrics()
    metrics.watch_forecasts(lambda: {"embeddings_service": Foreseen(30.0, 4.0, 1.0, 8.0, 0.9, None, None, None)})
    found = [line for line in lines(metrics) if line.startswith("rag_forecast")]
    assert found == [
        'rag_forecast_calls{bound="low",service="embeddings_service"} 1.0',
        'rag_forecast_calls{bound="expected",service="embeddings_service"} 4.0',
        'rag_forecast_calls{bound="high",service="embeddings_service"} 8.0',
        'rag_forecast_ahead_seconds{service="embeddings_service"} 30.0',
    ]
    metrics.watch_forecasts(lambda: {"embeddings_service": Foreseen(30.0, 4.0, 1.0, 8.0, 0.9, 0.875, 0.5, 0.75)})
    assert [line for line in lines(metrics) if line.startswith("rag_forecast")][4:] == [
        'rag_forecast_covered_ratio{service="embeddings_service"} 0.875',
        'rag_forecast_error_calls{of="forecast",service="embeddings_service"} 0.5',
        'rag_forecast_error_calls{of="last_value",service="embeddings_service"} 0.75',
    ]


def test_the_machine_is_shown_as_it_was_last_seen(tmp_path: Path) -> None:
    metrics, machine = Metrics(), Machine(tmp_path)
    metrics.watch_machine(machine)
    assert not any(line.startswith(("rag_processes{", "rag_disk_free_bytes ")) for line in lines(metrics))
    seen = machine.look()
    assert 'rag_processes{kind="server"} 1.0' in lines(metrics)
    assert metrics.registry.get_sample_value("rag_disk_free_bytes") == seen.disk_free_bytes
    assert metrics.registry.get_sample_value("rag_process_resident_memory_bytes", {"kind": "server"}) > 2**20
    assert metrics.registry.get_sample_value("rag_process_cpu_seconds_total", {"kind": "server"}) > 0


def test_what_runs_is_shown() -> None:
    metrics = Metrics()
    metrics.built("1.2.3", 4)
    python = platform.python_version()
    assert {f'rag_build_info{{python="{python}",version="1.2.3"}} 1.0', "rag_cores 4.0"} <= set(lines(metrics))


def test_each_bucket_has_a_purpose_that_is_told() -> None:
    shapes = {
        name: shape
        for name, shape in HISTOGRAMS.items()
        if shape.purpose and list(shape.buckets) == sorted(set(shape.buckets))
    }
    families = {family.name for family in Metrics().registry.collect() if family.type == "histogram"}
    assert set(shapes) == families


async def test_ejections_are_counted() -> None:
    metrics, team = Metrics(), Team("abc", ejecting=EjectSettings())
    metrics.watch_replicas("embeddings_service", team.balancer.stats, team.balancer.views)
    team["b"].fail()
    await team.calls(30)
    assert 'rag_replica_ejections_total{service="embeddings_service"} 1.0' in lines(metrics)
    assert 'rag_replicas{service="embeddings_service",state="ejected"} 1.0' in lines(metrics)


def test_who_was_sent_away_at_once_is_no_fast_answer() -> None:
    metrics = Metrics()
    for status in (200, 503, 429):
        metrics.request_started()
        metrics.request_finished("/v1/collections/{name}/search", "POST", status, 0.002)
    assert 'rag_request_duration_seconds_count{route="/v1/collections/{name}/search"} 2.0' in lines(metrics)
    assert 'rag_requests_total{method="POST",route="/v1/collections/{name}/search",status="429"} 1.0' in lines(metrics)
