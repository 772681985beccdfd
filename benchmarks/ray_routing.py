"""What a call to a Ray Serve deployment costs, and how large a part of the calls goes to its slow replica, by router.

Usage: python benchmarks/ray_routing.py [--calls 600] [--callers 8] [--slow 0.2] [--fast 0.02] [--json]. Starts a Ray of
one core on loopback and deploys the embedding engine four times, three replicas each: chosen among by Ray Serve's own
router (power of two choices by queue length), by our ``round_robin`` with and without ejection, and by our default. The
model hashes words and sleeps, in the first replica of each for longer. Each caller sends one call after another.
Caveats: one machine, one calling process, and a replica that is slow from the start; callers, router and replicas share
the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

LOOPBACK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
}
os.environ.update(LOOPBACK)  # Ray reads some of these when it is imported

import ray
from ray import serve

from ragworks.bench.machine import commit, machine
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import ReplicaSpec
from ragworks.models.hashing import HashingEmbedder
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.runtimes.ray_deployed import Deployed
from ragworks.runtimes.ray_serve import Routing, application
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.settings import EmbeddingsSettings
from ragworks.types import TextKind, Vectors

ROUTERS = {
    "serve": None,
    "round_robin": Routing(ReplicaSet, BalanceSettings("round_robin"), EjectSettings(max_ejected_share=0.0)),
    "round_robin, outliers ejected": Routing(ReplicaSet, BalanceSettings("round_robin")),
    "adaptive, outliers ejected": Routing(ReplicaSet),
}
NAMES = {"serve": "Ray Serve's own"}
REPLICAS = 3


class Sleepy(HashingEmbedder):
    """Says by its name which replica it is in."""

    def __init__(self, folder: Path, slow_s: float, fast_s: float) -> None:
        try:
            os.close(os.open(folder / "slow", os.O_CREAT | os.O_EXCL))
            self._delay_s, self.name = slow_s, "slow"
        except FileExistsError:
            self._delay_s, self.name = fast_s, "fast"
        self._calls = folder / self.name

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        time.sleep(self._delay_s)
        with open(self._calls, "ab", buffering=0) as file:
            file.write(b"." * len(texts))
        return super().embed(texts, kind)


def engine(folder: Path, slow_s: float, fast_s: float) -> EmbeddingEngine:
    from ray.serve._private import replica

    add = replica.add_port_to_grpc_server  # which Serve opens to all networks, by default
    replica.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))
    return EmbeddingEngine(EmbeddingsSettings(model_name="hashing"), lambda _: Sleepy(folder, slow_s, fast_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--slow", type=float, default=0.2)
    parser.add_argument("--fast", type=float, default=0.02)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    # Ray prints what it has to say to standard output.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, contextlib.redirect_stdout(sys.stderr):
        rows = measured(Path(folder), given)
    found = {"machine": machine(), "commit": commit(), "given": vars(given), "rows": rows}
    print(json.dumps(found, indent=2) if given.json else table(rows))


def measured(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False,
        logging_level="ERROR", _temp_dir=str(folder),
    )  # fmt: skip
    try:
        serve.start(proxy_location="Disabled")
        return [one(folder, name, routing, given) for name, routing in ROUTERS.items()]
    finally:
        serve.shutdown()
        ray.shutdown()


def one(folder: Path, name: str, routing: Routing | None, given: argparse.Namespace) -> dict[str, Any]:
    number = list(ROUTERS).index(name)
    at = folder / f"calls-{number}"
    at.mkdir()
    app_name = f"engine-{number}"  # of its own: a process keeps the first router that it made for a deployment
    spec = ReplicaSpec("embeddings_service", engine, (at, given.slow, given.fast))
    app = application(spec, REPLICAS, routing, actor_options={"num_cpus": 0})
    serve.run(app, name=app_name, route_prefix=None)
    try:
        return {"router": name, **asyncio.run(calls(Deployed(app_name), at, given))}
    finally:
        serve.delete(app_name)


async def calls(deployed: Deployed, at: Path, given: argparse.Namespace) -> dict[str, Any]:
    idle = [await timed(deployed, "describe") for _ in range(200)]
    numbers = iter(range(given.calls))

    async def caller() -> list[float]:
        return [await timed(deployed, "embed", [f"text {number}"], "passage") for number in numbers]

    taken = sorted(chain(*await asyncio.gather(*(caller() for _ in range(given.callers)))))
    sent = Counter({name: (at / name).stat().st_size for name in ("slow", "fast") if (at / name).stat().st_size})
    return {
        "idle_p50_ms": 1000 * sorted(idle)[len(idle) // 2],
        "slow_calls": sent["slow"],
        "calls": sent.total(),
        "p50_ms": 1000 * taken[len(taken) // 2],
        "p95_ms": 1000 * taken[int(len(taken) * 0.95)],
        "mean_ms": 1000 * sum(taken) / len(taken),
    }


async def timed(deployed: Deployed, verb: str, *arguments: Any) -> float:
    started = time.perf_counter()
    await deployed.call(verb, *arguments)
    return time.perf_counter() - started


def table(rows: Sequence[dict[str, Any]]) -> str:
    names = ("router", "a call when idle, p50 ms", "to the slow replica", "p50 ms", "p95 ms", "mean ms")
    cells = [
        (
            NAMES.get(row["router"], row["router"]),
            f"{row['idle_p50_ms']:.1f}",
            f"{row['slow_calls']} of {row['calls']}",
            *(f"{row[one]:.0f}" for one in ("p50_ms", "p95_ms", "mean_ms")),
        )
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *cells))


if __name__ == "__main__":
    main()
