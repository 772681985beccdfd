"""What a worker process runs: one call after another from its channel, the answers back into it."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from ragworks.errors import CorruptDocument, RagworksError, ReadMemoryExceeded
from ragworks.runtimes.spawned import trim

HEADER = struct.Struct(">Q")
"""The length of the frame that follows. A frame is a pickled tuple whose first item says what it is."""

READY, MESSAGE, RESULT, ERROR = "ready", "message", "result", "error"


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


def main(channel: int) -> NoReturn:
    """Serve calls until the parent ends this process or dies."""
    requests, answers = os.fdopen(os.dup(channel), "rb"), os.fdopen(channel, "wb")
    _send(answers, frame(READY, os.getpid()))
    while len(header := requests.read(HEADER.size)) == HEADER.size:
        call = requests.read(HEADER.unpack(header)[0])
        _send(answers, _answer(call, lambda value: _send(answers, frame(MESSAGE, value))))
        del call
        trim()
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
