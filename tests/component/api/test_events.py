"""``GET /v1/events``: the list of decisions, from the newest back, or on from an id."""

from __future__ import annotations

import httpx
import pytest

from component.api.fake_app import FakeApp
from ragworks.api.application import JSON_BYTES

EVENTS = "/v1/events"


@pytest.fixture(autouse=True)
async def _five(app: FakeApp) -> None:
    for n in range(5):
        app.journal.for_service("vector_store")(f"kind {n}", reason=f"r{n}", inputs={"n": n}, replica="vector_store-0")
    await app.journal.flush()


def reasons(answer: httpx.Response) -> list[str]:
    return [event["reason"] for event in answer.json()["data"]]


async def test_an_event_carries_what_was_seen_and_why(client: httpx.AsyncClient, app: FakeApp) -> None:
    answer = (await client.get(EVENTS, params={"limit": 1})).json()
    [event] = answer["data"]
    assert event == {
        "id": "5",
        "at": app.events.kept[-1].at,
        "service": "vector_store",
        "replica": "vector_store-0",
        "action": "kind 4",
        "reason": "r4",
        "count": 1,
        "policy": "",
        "inputs": {"n": 4},
        "decision": {},
    }
    assert (answer["has_more"], answer["last_id"]) == (True, "5")


@pytest.mark.parametrize("order", [{}, {"order": "desc"}, {"order": "asc"}])
@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
async def test_paging_gives_each_event_once_as_any_list_does(
    client: httpx.AsyncClient, order: dict[str, str], limit: int
) -> None:
    found: list[str] = []
    pages, given = 0, {**order, "limit": str(limit)}
    while True:
        answer = await client.get(EVENTS, params=given)
        found += reasons(answer)
        pages, given["after"] = pages + 1, answer.json()["last_id"]
        if not answer.json()["has_more"]:
            break
    all_of_them = ["r0", "r1", "r2", "r3", "r4"]
    assert found == (all_of_them if "asc" in order.values() else all_of_them[::-1])
    assert pages == -(-5 // limit)


async def test_who_has_seen_all_keeps_its_place_and_hears_of_the_next_at_once(
    client: httpx.AsyncClient, app: FakeApp
) -> None:
    nothing = (await client.get(EVENTS, params={"after": "5", "order": "asc"})).json()
    assert nothing == {"data": [], "has_more": False, "last_id": "5"}
    app.journal.for_service("vector_store")("scaled", reason="just now")
    assert reasons(await client.get(EVENTS, params={"after": nothing["last_id"], "order": "asc"})) == ["just now"]


async def test_events_of_a_service_or_since_a_time(client: httpx.AsyncClient, app: FakeApp) -> None:
    app.journal.for_service("retrieval_service")("scaled", reason="other")
    assert reasons(await client.get(EVENTS, params={"service": "retrieval_service"})) == ["other"]
    assert reasons(await client.get(EVENTS, params={"since": app.events.kept[-1].at + 60})) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"service": "vector_stor"}, "did you mean vector_store?"),
        ({"after": "yesterday"}, "expected the id of an event, found 'yesterday'"),
        ({"after": "9" * 40}, "expected the id of an event"),
        ({"since": "-1"}, "since"),
        ({"since": "nan"}, "since"),
        ({"limit": "0"}, "limit"),
        ({"order": "random"}, "order"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_what_can(
    client: httpx.AsyncClient, given: dict[str, str], told: str
) -> None:
    answer = await client.get(EVENTS, params=given)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert told in answer.json()["detail"]


async def test_a_body_that_is_too_long_is_an_event(client: httpx.AsyncClient) -> None:
    await client.post("/v1/collections/default/search", content=b" " * (JSON_BYTES + 1))
    [event] = (await client.get(EVENTS, params={"service": "orchestration_api"})).json()["data"]
    assert (event["action"], event["inputs"]["max_body_bytes"]) == ("refused", JSON_BYTES)
