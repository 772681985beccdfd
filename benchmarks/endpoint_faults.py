"""What callers notice when one of three OpenAI-compatible endpoints is slow, fails, limits, lies, hangs or is gone.

Usage: python benchmarks/endpoint_faults.py [--rate 40] [--seconds 15] [--faults slow,failing,…] [--json]. Three servers
on loopback take 20 ms for a request. Questions arrive at random; after 3 s one server misbehaves ("all limited": each).
Reported of the calls from then on: how many failed or took over 1 s, median, p99 and worst time, and how many requests
the misbehaving server still got. Caveats: servers and callers share an event loop; vectors are made of hashed words.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import numpy as np
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ragworks.api.server import bind
from ragworks.bench.machine import commit, machine
from ragworks.clock import SystemClock
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.settings import EmbeddingsSettings, EndpointSettings
from ragworks.testing import LocalEmbeddings, endpoint_set

FAULTS = ("slow", "failing", "limited", "garbage", "gone", "hanging", "all limited")
WORK_S, SLOW_S, RETRY_AFTER_S = 0.02, 0.2, 2
BEFORE_S, LATE_S = 3.0, 1.0
NO_PREFIX: Any = {"question": "", "passage": ""}


class Endpoint:
    """Entering starts it; ``how`` is the fault that it has, if any."""

    def __init__(self) -> None:
        self.how, self.struck = "", 0
        self._socket = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        routes = [Route("/v1/embeddings", self._answer, methods=["POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> Endpoint:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.should_exit = True
        await self._serving

    async def misbehave(self, how: str) -> None:
        self.how = how
        if how == "gone":
            await self.__aexit__()

    async def _answer(self, request: Request) -> Response:
        self.struck += bool(self.how)
        if self.how == "failing":
            return JSONResponse({"error": {"message": "out of memory"}}, 500)
        if self.how == "limited":
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": str(RETRY_AFTER_S)})
        if self.how == "garbage":
            return HTMLResponse("<h1>It works!</h1>")
        await asyncio.sleep({"slow": SLOW_S, "hanging": 3600.0}.get(self.how, WORK_S))
        rows = HashingEmbedder().embed((await request.json())["input"], "passage")
        packed = [base64.b64encode(row.tobytes()).decode() for row in rows]
        return JSONResponse({"data": [{"index": at, "embedding": row} for at, row in enumerate(packed)]})


async def one_fault(fault: str, rate: float, seconds: float) -> Mapping[str, Any]:
    async with AsyncExitStack() as opened:
        endpoints = [await opened.enter_async_context(Endpoint()) for _ in range(3)]
        urls = tuple(one.url for one in endpoints)
        settings = EndpointSettings(model="hashing", urls=urls, dimension=256)
        clock = SystemClock()
        model = OpenAIEmbedder(settings, NO_PREFIX, endpoint_set(urls, clock), clock)
        service = LocalEmbeddings(
            EmbeddingsSettings(cache_enabled=False, endpoint=settings), lambda: model, None, clock
        )
        await service.initialize()
        opened.push_async_callback(service.shutdown)
        await load(service, rate, BEFORE_S)
        for one in endpoints if fault.startswith("all ") else endpoints[:1]:
            await one.misbehave(fault.removeprefix("all "))
        took, errors = await load(service, rate, seconds)
    return {
        "fault": fault,
        "calls": len(took) + len(errors),
        "failed": len(errors),
        "over_1_s": sum(one > LATE_S for one in took),
        **dict(
            zip(
                ("p50_ms", "p99_ms", "worst_ms"),
                np.percentile(took or [0.0], (50, 99, 100)).round(4) * 1000,
                strict=True,
            )
        ),
        "requests_to_it": sum(one.struck for one in endpoints),
        "errors": sorted(set(errors))[:3],
    }


async def load(service: LocalEmbeddings, rate: float, seconds: float) -> tuple[list[float], list[str]]:
    """Seconds of each call that was answered, and the reasons of the others."""
    rng, took, errors = Random(5), list[float](), list[str]()

    async def ask(number: int) -> None:
        began = time.monotonic()
        made = await service.embed_texts([f"question {number}"], kind="question")
        errors.extend(one.reason for one in made.failed)
        if not made.failed:
            took.append(time.monotonic() - began)

    until, number = time.monotonic() + seconds, 0
    async with asyncio.TaskGroup() as calls:
        while time.monotonic() < until:
            calls.create_task(ask(number := number + 1))
            await asyncio.sleep(rng.expovariate(rate))
    return took, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=40.0, help="questions a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of load after the fault")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = [asyncio.run(one_fault(fault, given.rate, given.seconds)) for fault in given.faults.split(",")]
    found = {"machine": machine(), "commit": commit(), "rate": given.rate, "seconds": given.seconds, "rows": rows}
    print(json.dumps(found, indent=2) if given.json else table(found))


def table(found: Mapping[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, {found['rate']:g} questions/s", ""]
    names = list(found["rows"][0])
    lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in found["rows"]:
        lines.append(f"| {' | '.join(f'{one:.0f}' if isinstance(one, float) else str(one) for one in row.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
