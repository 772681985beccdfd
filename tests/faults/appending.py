"""A process that appends events until it is killed: ``python appending.py FILE``; prints each id that was kept."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from contract.test_event_logs import an_event
from ragworks.clock import SystemClock
from ragworks.settings import EventSettings
from ragworks.storage.events import SqliteEvents


async def append(path: Path) -> None:
    log = SqliteEvents(path, EventSettings(keep=50, keep_s=1e12), SystemClock())
    log.open()
    while True:
        await log.append([an_event("x" * 500)] * 3)
        sys.stdout.write(f"{(await log.recent(limit=1))[0].id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(append(Path(sys.argv[1])))
