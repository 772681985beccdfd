"""What every runtime promises of the replicas it starts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ragworks.control_protocols import ReplicaSpec
from ragworks.errors import ReplicaLost
from ragworks.runtimes.inline import InlineRuntime
from ragworks.runtimes.replicas import ProcessRuntime
from replica_services import Echo

Local = InlineRuntime | ProcessRuntime


@pytest.fixture(params=[InlineRuntime, ProcessRuntime])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Local]:
    async with request.param() as runtime:
        yield runtime


async def test_a_replica_answers_and_is_gone_when_killed(runtime: Local) -> None:
    replica = await runtime.start(ReplicaSpec("echo", Echo, ("a note",)), "echo-1")
    assert await replica.call("echo", {"value": [1, "é"]}) == {"value": [1, "é"]}
    assert await replica.call("stats") == {"note": "a note"}
    assert [item async for item in replica.stream("count", 30)] == list(range(30))
    await replica.kill()
    assert "killed" in await replica.ended()
    with pytest.raises(ReplicaLost, match="echo-1"):
        await replica.call("stats")
