"""The balancer over replicas that fail, hang, are slow, die, come and go."""

from __future__ import annotations

import asyncio

from ragworks.testing import settle
from team import Team


async def test_calls_go_to_all_replicas_and_counts_return_to_zero(trio: Team) -> None:
    assert await trio.calls(30) == {"a", "b", "c"}
    assert trio.active == 0


async def test_a_call_whose_replica_dies_is_answered_by_another(trio: Team) -> None:
    trio["a"].hang()
    trio["b"].hang()
    trio["c"].hang()
    calls = [asyncio.create_task(trio.balancer.call("name")) for _ in range(30)]
    await settle()
    trio["b"].recover()
    trio["c"].recover()
    trio["a"].die()
    assert set(await asyncio.gather(*calls)) == {"b", "c"}
    assert trio.active == 0
