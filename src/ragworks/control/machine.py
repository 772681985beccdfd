"""What the machine has left (the disk of the data folder, and memory), and what the server takes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import psutil

from ragworks.control.process_tree import ProcessTree
from ragworks.policies.health import MachineSeen


class Machine:
    """``folder`` is where data is kept, ``workers`` are the ids of the processes that read documents.

    ``seen`` and ``processes`` are as of the last look; orchestration_api looks every few seconds.
    """

    def __init__(self, folder: Path, workers: Callable[[], Collection[int]] = tuple) -> None:
        self._folder, self.processes = folder, ProcessTree(workers)
        self.seen = MachineSeen()

    def look(self) -> MachineSeen:
        """Blocks for some milliseconds: it reads every process of the server's tree. Never raises."""
        free = total = None
        with suppress(OSError):  # a folder that is not there yet, or no more
            usage = shutil.disk_usage(self._folder)
            free, total = usage.free, usage.total
        memory = psutil.virtual_memory()
        self.processes.look()
        self.seen = MachineSeen(
            disk_free_bytes=free,
            disk_total_bytes=total,
            memory_available_bytes=memory.available,
            memory_total_bytes=memory.total,
            own_memory_bytes=sum(taken.memory_bytes for taken in self.processes.taken.values()),
        )
        return self.seen
