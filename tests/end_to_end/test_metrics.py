"""`/metrics` of a real server: what it shows from the start, after work, and when a child stops or is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from end_to_end.test_cli import DEADLINE_S, Served

DOCUMENTS, SEARCH = "/v1/collections/default/documents", "/v1/collections/default/search"
TEXT = "The battery of the Fox 2 has a warranty of two years from the day of purchase."
MOST_SERIES = 1300


class Scrape:
    """One answer of ``/metrics``."""

    def __init__(self, http: httpx.Client) -> None:
        # The bound of a scrape in Prometheus is 10 s by default; this one is loopback.
        answer = http.get("/metrics", timeout=5.0)
        assert answer.status_code == 200
        self.families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        self.values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The sum over all samples of that name that have these labels; None if there is none."""
        wanted = labels.items()
        found = [value for (one, has), value in self.values.items() if one == name and wanted <= set(has)]
        return sum(found) if found else None

    @property
    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All that may never go down, the buckets of histograms included."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }


@contextmanager
def serving(folder, **settings: str) -> Iterator[httpx.Client]:
    server = Served(folder, **settings)
    try:
        with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
            while http.get("/readyz?verbose").json().get("services") != {}:
                pass
            yield http
    finally:
        assert server.stop() == 0, "".join(server.lines)


def ingest(http: httpx.Client, name: str, text: str) -> None:
    accepted = http.post(DOCUMENTS, json={"documents": [{"id": name, "text": text, "title": "Warranty"}]})
    assert accepted.status_code == 202, accepted.text
    with http.stream("GET", f"{accepted.headers['location']}/events") as events:
        assert list(events.iter_lines())  # ends with the job
    assert http.get(accepted.headers["location"]).json()["status"] == "completed"


def search(http: httpx.Client, query: str) -> None:
    assert http.post(SEARCH, json={"query": query, "mode": "dense"}).status_code == 200


def replica(http: httpx.Client) -> dict[str, object]:
    """The engine, asked of the server, which looks at everything for it."""
    services = http.get("/v1/services").json()["data"]
    [found] = next(one["replicas"] for one in services if one["name"] == "embeddings_service")
    return found


def test_a_server_counts_its_work_and_no_counter_goes_down_when_its_engine_is_killed(tmp_path) -> None:
    with serving(tmp_path, RAGWORKS_EMBEDDINGS_SERVICE__REPLICAS__RUNTIME="process") as http:
        fresh = Scrape(http)
        assert len(fresh.values) < MOST_SERIES
        assert fresh.value("rag_cache_hits_total", tier="stored") == 0
        ingest(http, "a", TEXT)
        search(http, "how long is the warranty?")
        search(http, "how long is the warranty?")
        http.delete("/v1/cache")
        ingest(http, "b", f"{TEXT}\n\n")  # the passage is known to the store, and no longer to the memory
        victim = replica(http)
        worked = Scrape(http)
        assert (
            worked.value("rag_embedding_batches_total")
            == worked.value("rag_embedding_batch_duration_seconds_count")
            > 0
        )
        assert worked.value("rag_embedding_batch_tokens_sum") == worked.value("rag_tokens_total", kind="input") > 0
        assert worked.value("rag_cache_hits_total", tier="memory") > 0
        assert worked.value("rag_cache_hits_total", tier="stored") > 0
        assert worked.value("rag_cache_misses_total") > 0
        assert worked.value("rag_replica_memory_bytes", replica=victim["id"]) > 2**20
        assert worked.value("rag_processes", kind="replica") == 1
        assert worked.value("rag_processes", kind="worker") >= 1
        assert worked.value("rag_process_cpu_seconds_total", kind="replica") > 0
        assert worked.value("rag_process_resident_memory_bytes", kind="worker") > 2**20
        assert worked.value("rag_scale_target_replicas", service="embeddings_service") == 1

        os.kill(victim["pid"], signal.SIGSTOP)
        stopped = Scrape(http)
        assert stopped.value("rag_replica_memory_bytes", replica=victim["id"]) > 2**20
        os.kill(victim["pid"], signal.SIGKILL)
        search(http, "who makes the battery?")  # waits for the next engine
        assert replica(http)["id"] != victim["id"]
        after = Scrape(http)
        for before in (worked, stopped):
            assert {
                one: (value, after.counters.get(one))
                for one, value in before.counters.items()
                if after.counters.get(one, -1) < value
            } == {}
        assert after.value("rag_embedding_batches_total") > worked.value("rag_embedding_batches_total")
        assert after.value("rag_events_total", action="replica_ended") == 1
        assert after.value("rag_replica_memory_bytes", replica=victim["id"]) is None
        # Whatever was counted was at zero from the start, so that a rate sees it: all but requests of unforeseen kinds.
        assert {name for name, _ in after.counters.keys() - fresh.counters.keys()} <= {"rag_requests_total"}


def test_what_waits_and_what_failed_is_shown_also_after_a_restart(tmp_path) -> None:
    with serving(tmp_path) as http:
        assert Scrape(http).value("rag_dead_letters") == 0
        http.post(DOCUMENTS, files=[("files", ("bad.pdf", b"%PDF-1.7 broken"))])
        while Scrape(http).value("rag_documents_total", outcome="failed") != 1:
            pass
        replica(http)  # has everything looked at
        assert Scrape(http).value("rag_dead_letters") == 1
    with serving(tmp_path) as http:
        shown = Scrape(http)
        assert shown.value("rag_dead_letters") == 1
        assert (shown.value("rag_queue_size"), shown.value("rag_queue_bytes")) == (0, 0)
        assert shown.value("rag_queue_oldest_seconds") == 0
        assert shown.value("rag_disk_free_bytes") > 0
        assert shown.value("rag_build_info") == 1
        assert shown.value("rag_cores") >= 1
        assert shown.value("process_open_fds") is None or shown.value("process_start_time_seconds") > 0
