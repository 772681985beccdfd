from __future__ import annotations

import re

import httpx

from component.api.fake_app import FakeApp
from ragworks.types import Health, ServiceHealth


async def test_the_process_is_alive_whatever_its_services_are(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.orchestrator.down = {"vector_store": "disk gone", "retrieval_service": "waiting"}
    assert (await client.get("/livez")).json() == {"status": "alive"}


async def test_readiness_names_what_is_not_up_and_why(client: httpx.AsyncClient, app: FakeApp) -> None:
    assert (await client.get("/readyz")).json() == {"ready": True}
    assert (await client.get("/readyz?verbose")).json() == {"ready": True, "services": {}}
    app.orchestrator.down = {"vector_store": "disk gone"}
    answer = await client.get("/readyz?verbose")
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", "not_ready")
    assert answer.json()["services"] == {"vector_store": "disk gone"}


async def test_readiness_names_what_is_up_and_not_well_and_why(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.orchestrator.health = ServiceHealth("vector_store", Health.DEGRADED, details={"reason": "300 MiB are left"})
    assert (await client.get("/readyz")).json() == {"ready": True}
    answer = await client.get("/readyz?verbose")
    assert answer.json() == {"ready": True, "services": {"vector_store": "degraded: 300 MiB are left"}}
    assert (await client.get("/health")).json()["services"][0]["details"] == {"reason": "300 MiB are left"}


async def test_health_sums_up_the_services(client: httpx.AsyncClient, app: FakeApp) -> None:
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert answer.json()["services"][0]["service_name"] == "vector_store"
    app.orchestrator.down = {"retrieval_service": "no index"}
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    assert answer.json()["services"][1]["details"]["error"] == "no index"


async def test_services_are_listed_with_replicas_and_statistics(client: httpx.AsyncClient) -> None:
    [service] = (await client.get("/v1/services")).json()["data"]
    assert (service["name"], service["status"], service["stats"]) == ("vector_store", "started", {"chunks": 2})
    assert service["calls"] == {"queued": 2.0, "queue_age_s": 1.5}
    [replica] = service["replicas"]
    assert (replica["pid"], replica["queue_size"], replica["queue_age_s"]) == (7, 2, 1.5)
    assert (replica["p50_response_time"], replica["p95_response_time"]) == (0.1, None)


async def test_a_service_is_scaled_by_hand_and_answers_how_it_stands(client: httpx.AsyncClient, app: FakeApp) -> None:
    answer = await client.post("/v1/services/embeddings_service/scale", json={"instances": 2})
    assert answer.status_code == 200
    assert [one["note"] for one in answer.json()["replicas"]] == ["soon", "soon"]
    assert app.orchestrator.scaled == [("embeddings_service", 2, "asked for by hand")]
    answer = await client.post("/v1/services/no-such/scale", json={"instances": 2})
    assert (answer.status_code, answer.json()["code"]) == (404, "service_not_found")
    for wrong in ({"instances": 0}, {"instances": "2"}, {}, {"instance": 2}, {"instances": 2, "mode": "auto"}):
        assert (await client.post("/v1/services/embeddings_service/scale", json=wrong)).status_code == 422


async def test_a_service_is_scaled_by_its_load_again_and_shows_its_mode_before_anything_is_decided(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    """A scaler that had decided nothing made this answer, and the list of services, a 500."""
    answer = await client.post("/v1/services/embeddings_service/scale", json={"mode": "auto"})
    assert answer.status_code == 200
    assert app.orchestrator.scaled == [("embeddings_service", "auto", "asked for by hand")]
    assert answer.json()["scaling"] == {
        "mode": "auto",
        "action": None,
        "target_instances": None,
        "reason": None,
        "forecast": None,
    }
    wrong = await client.post("/v1/services/embeddings_service/scale", json={"mode": "by hand"})
    assert wrong.status_code == 422


async def test_doctor_answers_the_counts_that_must_agree(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/doctor")).json()
    assert answer == {
        "healthy": True,
        "documents": 1,
        "chunks": 2,
        "vectors": 2,
        "words": 2,
        "blobs": 1,
        "problems": [],
    }


async def test_metrics_are_in_the_prometheus_format(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE rag_requests_total counter" in answer.text


async def test_the_documentation_page_lists_the_routes_and_loads_nothing_from_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    page = (await client.get("/docs")).text
    assert "<code>/v1/collections/{name}/search</code>" in page
    assert not re.search(r"https?://|src=", page)


async def test_the_openapi_document_describes_bodies_and_errors_and_every_reference_resolves(
    client: httpx.AsyncClient,
) -> None:
    document = (await client.get("/openapi.json")).json()
    names = set(document["components"]["schemas"])
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', (await client.get("/openapi.json")).text))
    assert references <= names
    submit = document["paths"]["/v1/collections/{name}/documents"]["post"]
    assert set(submit["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"202", "413", "422", "429", "503", "507"} <= set(submit["responses"])
    search = document["paths"]["/v1/collections/{name}/search"]["post"]
    assert search["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/SearchRequest")
    assert "application/problem+json" in search["responses"]["404"]["content"]


async def test_the_page_shows_code_as_code(client: httpx.AsyncClient) -> None:
    """The backquotes of the descriptions stood on the page as they are written in the source."""
    page = (await client.get("/docs")).text
    assert "<code>?verbose</code>" in page
    assert "``" not in page


async def test_the_cache_is_reported_and_cleared(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/cache")).json()
    assert (found["model"], found["entries"], found["hit_rate"]) == ("hashing:1", 3, 0.9)
    assert (await client.delete("/v1/cache")).json() == {"cleared": 3}
    assert (await client.get("/v1/cache")).json()["entries"] == 0


async def test_without_a_model_there_is_no_cache_to_report(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.orchestrator.down["embeddings_service"] = "no model"
    assert (await client.get("/v1/cache")).json()["code"] == "not_ready"
