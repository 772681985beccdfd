"""More questions than a server answers at once: the rest is told when to come back, and nobody waits in the dark."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx

from end_to_end.test_cli import run
from end_to_end.test_restarts import DEFAULT, LEAVE, client, put_in, ready, serving

QUESTIONS = 60


async def test_a_crowd_is_answered_or_told_when_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, RAGWORKS_ORCHESTRATION_API__MAX_QUESTIONS="2") as server:
        ready(server)
        put_in(server, leave=LEAVE)
        async with client(server) as http:
            found = await asyncio.gather(
                *(http.post(f"{DEFAULT}/search", json={"query": f"how long is leave {n}"}) for n in range(QUESTIONS))
            )
            refused = [one for one in found if one.status_code == 429]
            assert {one.status_code for one in found} == {200, 429}
            for one in refused:
                assert one.json()["code"] == "too_many_questions"
                assert 1 <= int(one.headers["retry-after"]) <= 60
            assert (await http.post(f"{DEFAULT}/ask", json={"question": "How long is leave?"})).status_code == 200
            assert await shown(http, 'rag_errors_total{code="too_many_questions"}') == len(refused)
        events = json.loads(
            (await asyncio.to_thread(run, tmp_path, "why", "orchestration_api", "--replay", "--json"))[0]
        )
        told = [one for one in events["data"] if one["action"] == "refused"]
        assert {(one["policy"], one["replay"]["same"]) for one in told} == {("crowding.turn", True)}


async def shown(http: httpx.AsyncClient, series: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))
