from __future__ import annotations

from ragworks.control.metrics import Metrics, codes
from ragworks.types import Stage


def lines(metrics: Metrics) -> list[str]:
    return metrics.render().decode().splitlines()


def test_every_family_has_a_sample_at_zero_from_the_start() -> None:
    metrics = Metrics()
    families = {line.split()[2] for line in lines(metrics) if line.startswith("# TYPE")}
    samples = [line for line in lines(metrics) if not line.startswith("#")]
    for family in families:
        own = [line for line in samples if line.startswith(family)]
        assert own, family
        assert all(line.endswith(" 0.0") for line in own), family


def test_what_is_reported_is_counted() -> None:
    metrics = Metrics()
    metrics.stage(Stage.PARSING, 0.2)
    metrics.document("completed")
    metrics.cache(3, 1)
    metrics.embedding_call("passage", 0.1)
    metrics.search({"embed": 0.01, "total": 0.02})
    metrics.answer("abstained")
    metrics.citations(2, 1)
    metrics.error("queue_full")
    metrics.loop_lag(0.002)
    assert {
        'rag_stage_duration_seconds_sum{stage="parsing"} 0.2',
        'rag_documents_total{outcome="completed"} 1.0',
        "rag_cache_hits_total 3.0",
        "rag_cache_misses_total 1.0",
        'rag_embedding_duration_seconds_count{kind="passage"} 1.0',
        "rag_searches_total 1.0",
        'rag_search_step_duration_seconds_sum{step="total"} 0.02',
        'rag_answers_total{outcome="abstained"} 1.0',
        'rag_citations_total{outcome="removed"} 1.0',
        'rag_errors_total{code="queue_full"} 1.0',
        "rag_loop_lag_seconds_count 1.0",
    } <= set(lines(metrics))


def test_live_state_is_read_when_it_is_scraped() -> None:
    metrics, size = Metrics(), [2.0]
    metrics.watch_queue(lambda: size[0])
    metrics.watch_service("vector_store", lambda: 1)
    assert "rag_queue_size 2.0" in lines(metrics)
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
