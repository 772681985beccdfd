"""What the machine has left: the disk of the data folder, and memory."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from ragworks.policies.health import MachineSeen


def look(folder: Path) -> MachineSeen:
    """Blocks for some milliseconds: it reads every process of the server's tree. Never raises."""
    free = total = None
    with suppress(OSError):  # a folder that is not there yet, or no more
        usage = shutil.disk_usage(folder)
        free, total = usage.free, usage.total
    memory = psutil.virtual_memory()
    return MachineSeen(
        disk_free_bytes=free,
        disk_total_bytes=total,
        memory_available_bytes=memory.available,
        memory_total_bytes=memory.total,
        own_memory_bytes=_own_memory_bytes(),
    )


def _own_memory_bytes() -> int:
    """Resident memory of this process and all below it; pages that they share count once for each."""
    server, total = psutil.Process(), 0
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total
