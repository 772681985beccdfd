"""What a worker process runs: one call after another from its first pipe, answers into its second.

The two pipes are the standard input and output that the process was born with. They are moved away before anything
else runs, so that whatever a library reads or prints cannot reach the protocol.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from ragworks.errors import CorruptDocument, RagworksError, ReadMemoryExceeded

HEADER = struct.Struct(">Q")
"""The length of the frame that follows. A frame is a pickled tuple whose first item says what it is."""

READY, MESSAGE, RESULT, ERROR = "ready", "message", "result", "error"
_PR_SET_PDEATHSIG = 1


def frame(*items: Any) -> bytes:
    """A tuple as it travels."""
    body = pickle.dumps(items, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def packed_error(error: BaseException) -> bytes:
    """The frame of an error: ours as itself, any other as a CorruptDocument that names it."""
    if isinstance(error, MemoryError):
        error = ReadMemoryExceeded("reading the document took more memory than there is")
    elif not isinstance(error, RagworksError):
        error = CorruptDocument(f"the document cannot be read: {type(error).__name__}: {error}")
    try:
        return frame(ERROR, type(error), error.args, dict(vars(error)))
    except Exception:  # a field that cannot travel must not hide the message
        return frame(ERROR, CorruptDocument, (str(error),), {})


def unpacked_error(kind: type[RagworksError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> RagworksError:
    """The error again. Its constructor is passed by: it made the message once, from other arguments."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(fields)
    return error


def main(parent: int, niceness: int) -> NoReturn:
    """Serve calls until the parent closes the pipe or dies."""
    requests, answers = _taken_over()
    _leave_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A service manager signals the whole group; the parent drains first and then closes the pipe.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(niceness)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, calls), name="calls", daemon=True).start()
    _send(answers, frame(READY, os.getpid()))
    while True:
        _send(answers, _answer(calls.get(), lambda value: _send(answers, frame(MESSAGE, value))))
        _trim()


def _taken_over() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


def _leave_with(parent: int) -> None:
    """On Linux the kernel ends this process with its parent, even while a parser holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _trim() -> None:
    """Give memory back that the last document took: a scan left 440 MB, of which 180 were free."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _receive(requests: BinaryIO, calls: queue.SimpleQueue[bytes]) -> None:
    """Hand calls to the main thread; the end of the pipe ends the process, whatever it is doing."""
    while len(header := requests.read(HEADER.size)) == HEADER.size:
        calls.put(requests.read(HEADER.unpack(header)[0]))
    os._exit(0)


def _answer(call: bytes, report: Callable[[Any], None]) -> bytes:
    try:
        function, arguments = pickle.loads(call)
        return frame(RESULT, function(*arguments, report))
    except Exception as error:  # whatever a document does to a parser is that document's failure
        return packed_error(error)


def _send(answers: BinaryIO, data: bytes) -> None:
    try:
        answers.write(data)
        answers.flush()
    except OSError:
        os._exit(0)
