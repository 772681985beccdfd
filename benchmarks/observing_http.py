"""What do metrics and traces add to a search over HTTP, as its caller meets it?

    scripts/bench observing_http [--searches 1500] [--documents 500] [--json]

One server in this process, its model in another, a client in a third, which asks the same question in four modes within
some sixty milliseconds, one at a time, in an order that changes: bare has metrics silenced, off has no traces, again is
off once more and shows what chance adds, traced sends all spans of each search to a collector on loopback. A header
that only this benchmark knows says which. No question's vector is in memory. Medians of the differences within a
question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import structlog
import uvicorn
from observing import WARM_UP, Counting, Switched, collector, filled, text

from ragworks import tracing
from ragworks.api.server import create_api
from ragworks.bench.machine import commit, machine
from ragworks.settings import TraceSettings

MODES = ("bare", "off", "again", "traced")
PAIRS = (("off", "bare"), ("again", "off"), ("traced", "off"), ("traced", "bare"))
CLIENT = """
import http.client, json, random, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
modes, questions = json.loads(sys.argv[3]), json.load(sys.stdin)
server, took, rng = http.client.HTTPConnection("127.0.0.1", port), {mode: [] for mode in modes}, random.Random(2)
for question in questions[:count]:
    for mode in rng.sample(modes, len(modes)):
        body, headers = json.dumps({"query": question}), {"content-type": "application/json", "mode": mode}
        began = time.perf_counter()
        server.request("POST", "/v1/collections/default/search", body, headers)
        answer = server.getresponse()
        found = answer.read()
        took[mode].append(time.perf_counter() - began)
        assert answer.status == 200, found
json.dump(took, sys.stdout)
"""


async def measure(searches: int, documents: int) -> dict[str, Any]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    rng = Random(1)
    with tempfile.TemporaryDirectory() as folder, collector():
        async with AsyncExitStack() as stack:
            tracer = Counting(TraceSettings())
            served = await filled(stack, folder, documents, "bge-small-en-v1.5", "process")
            served.questions._mode = "off"
            api = create_api(served)

            async def switched(scope: Any, receive: Any, send: Any) -> None:
                mode = next((value.decode() for name, value in scope["headers"] if name == b"mode"), "off")
                Switched.counting = mode != "bare"
                tracing.use(tracer if mode == "traced" else None)
                served.embeddings_service.clear_cache()
                await api(scope, receive, send)

            server = uvicorn.Server(uvicorn.Config(switched, log_level="warning", lifespan="off"))
            # Only where the protocol is named does asyncio switch off Nagle's algorithm, which costs 40 ms an answer.
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            serving = asyncio.create_task(server.serve([listening]))  # awaited below
            port = listening.getsockname()[1]
            took = await asked(port, [text(rng, 6) for _ in range(WARM_UP + searches)])
            server.should_exit = True
            await serving
            tracing.use(None)
            await asyncio.to_thread(tracer.close)
    return {"machine": machine(), "commit": commit(), **figures(took), "spans": tracer.spans / (WARM_UP + searches)}


async def asked(port: int, questions: list[str]) -> dict[str, list[float]]:
    """Seconds of each search by mode, after the first ones."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(port), str(len(questions)), json.dumps(MODES),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await client.communicate(json.dumps(questions).encode())
    return {mode: seconds[WARM_UP:] for mode, seconds in json.loads(said).items()}


def figures(took: dict[str, list[float]]) -> dict[str, float]:
    found = {f"{mode}_p50_ms": 1e3 * statistics.median(took[mode]) for mode in MODES}
    for mode, other in PAIRS:
        adds = statistics.median(one - without for one, without in zip(took[mode], took[other], strict=True))
        found[f"{mode}_adds_to_{other}_us"] = 1e6 * adds
        found[f"{mode}_adds_to_{other}_percent_of_p50"] = 100 * adds / statistics.median(took[other])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=1500)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seen = asyncio.run(measure(given.searches, given.documents))
    if given.json:
        print(json.dumps(seen))
    else:
        for name, value in seen.items():
            print(f"{name:40} {value if isinstance(value, str) else round(value, 2)}")
