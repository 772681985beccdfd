"""How long `ragworks --help` takes, how soon a server lives and is ready, and what an idle one holds in memory.

Usage: python benchmarks/startup.py [--runs 5] [--json]. Caveat: files are in the page cache after the first run, which
is reported apart; resident sizes count pages that the processes share once per process (`uss_mb` does not).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

RAGWORKS = [sys.executable, "-m", "ragworks"]
DEADLINE_S = 120.0
POLL_S = 0.005
SETTLE_S = 2.0  # what start-up allocated and no longer needs has been given back by then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    helps = [help_seconds() for _ in range(given.runs)]
    servers = [server_figures() for _ in range(given.runs)]
    found: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "help_s": summary(helps),
        **{key: summary([one[key] for one in servers]) for key in servers[0]},
    }
    print(json.dumps(found, indent=2) if given.json else table(found))


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([*RAGWORKS, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def server_figures() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with open(Path(folder) / "log", "wb") as log:
            server = subprocess.Popen([*RAGWORKS, "serve", "--port", "0", "--data", folder], stderr=log, stdout=log)
        try:
            url = wait_for(lambda: listening(folder), server)
            wait_for(lambda: answers(f"{url}/livez"), server)
            live = time.perf_counter() - started
            wait_for(lambda: answers(f"{url}/readyz"), server)
            ready = time.perf_counter() - started
            time.sleep(SETTLE_S)
            memory = memory_mb(server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            stopping = time.perf_counter()
            server.wait(DEADLINE_S)
        return {"livez_s": live, "readyz_s": ready, **memory, "stop_s": time.perf_counter() - stopping}


def memory_mb(pid: int) -> dict[str, float]:
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    rss = sum(one.memory_info().rss for one in tree)
    uss = sum(one.memory_full_info().uss for one in tree)
    return {"rss_mb": rss / 1e6, "uss_mb": uss / 1e6, "processes": float(len(tree))}


def listening(folder: str) -> str | None:
    try:
        return str(json.loads((Path(folder) / "server.json").read_text())["url"])
    except (OSError, ValueError):
        return None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition: Any, server: subprocess.Popen[bytes]) -> Any:
    deadline = time.perf_counter() + DEADLINE_S
    while not (found := condition()):
        if server.poll() is not None or time.perf_counter() > deadline:
            raise SystemExit(f"the server did not come up (exit code {server.poll()})")
        time.sleep(POLL_S)
    return found


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def summary(values: list[float]) -> dict[str, float]:
    figures = {"first": values[0], "median": statistics.median(values), "worst": max(values)}
    return {key: round(value, 3) for key, value in figures.items()}


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}", f"{'':12}{'first':>10}{'median':>10}{'worst':>10}"]
    for key, value in found.items():
        if isinstance(value, dict):
            lines.append(f"{key:12}{value['first']:>10}{value['median']:>10}{value['worst']:>10}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
