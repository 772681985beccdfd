"""A server whose disk fills up on SIGUSR1 and has room again after SIGUSR2: ``python filling.py serve …``.

Every write to a file then fails in the kernel, as on a full disk, whoever makes it.
"""

from __future__ import annotations

import resource
import signal
import sys

from ragworks.cli import main

_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, HARD))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: limit(0))
    signal.signal(signal.SIGUSR2, lambda *_: limit(HARD))
    sys.exit(main())
