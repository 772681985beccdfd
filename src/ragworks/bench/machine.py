"""Where figures were measured."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path

import psutil


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def available_cores() -> int:
    """How many this process may use, counted as the server counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_s() -> float:
    """CPU seconds that all programs of this machine have taken so far."""
    times = psutil.cpu_times()._asdict()
    # Linux counts what guests take among user and nice, too.
    return float(sum(spent for kind, spent in times.items() if kind not in ("idle", "iowait", "guest", "guest_nice")))


def commit() -> str:
    """Of the checkout that runs; "unknown" when ragworks was installed from a package."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
    return "unknown"
