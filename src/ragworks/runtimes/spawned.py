"""What every child process does first, before it imports what it is for. ``spawning.py`` is the other half."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def settle(parent: int, niceness: int, channel: int) -> None:
    """Tie this process to its parent, and leave to the parent what a signal for the whole group means."""
    os.set_inheritable(channel, False)
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a library that reads finds an end, and takes nothing from the lifeline
    os.close(nothing)
    _leave_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A service manager signals the whole group; the parent drains first and then ends its children.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(niceness)
    threading.Thread(target=_hold, args=(lifeline,), name="lifeline", daemon=True).start()


def _leave_with(parent: int) -> None:
    """On Linux the kernel ends this process with its parent, even while a library holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _hold(lifeline: int) -> None:
    """The end of the lifeline ends the process, whatever it is doing."""
    while os.read(lifeline, 1):
        pass
    os._exit(0)


def trim() -> None:
    """Give memory back that the last work took: a scan left 440 MB, of which 180 were free."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
