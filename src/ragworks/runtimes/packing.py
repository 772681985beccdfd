"""Values as they travel between processes: a pickle, and the memory of arrays beside it, never copied into it.

A message is a table of lengths, the pickle, then the buffers, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Sequence
from typing import Any

from ragworks.errors import InvalidInput

LONG = 256 * 1024
"""Bytes of pickle. More is packed in a thread, where it would hold the event loop for a millisecond and longer."""

MOST_BYTES = 1024**3
"""Of one message: what is longer is a mistake, and would be held in memory twice."""

ALIGNMENT = 64  # a cache line; vector instructions want their numbers there
_LENGTH = struct.Struct("<Q")
_PADDING = bytes(ALIGNMENT)


async def pack(value: Any) -> list[memoryview]:
    """The parts of a message. They share the memory of the value's arrays until they are sent.

    Raises InvalidInput when there are too many bytes, and whatever keeps the value from being pickled.
    """
    try:
        return _packed(value, LONG)
    except _TooLong:
        return await asyncio.to_thread(_packed, value, None)


async def unpack(message: memoryview) -> Any:
    """The value again; its arrays are views of the message, and as writeable as that."""
    return await unpickled(*_split(message))


async def unpickled(data: memoryview, buffers: Sequence[memoryview] = ()) -> Any:
    """What ``pickle.loads`` makes of it; a long one in a thread."""
    if len(data) <= LONG:
        return pickle.loads(data, buffers=buffers)
    return await asyncio.to_thread(lambda: pickle.Unpickler(_Source(data), buffers=buffers).load())


def _packed(value: Any, limit: int | None) -> list[memoryview]:
    sink, buffers = _Sink(limit), list[pickle.PickleBuffer]()
    pickle.Pickler(sink, protocol=5, buffer_callback=buffers.append).dump(value)
    raw = [buffer.raw() for buffer in buffers]
    lengths = [sink.size, *(len(one) for one in raw)]
    parts = [memoryview(struct.pack(f"<{1 + len(lengths)}Q", len(lengths), *lengths)), *sink.parts]
    at = _LENGTH.size * (1 + len(lengths)) + sink.size
    for one in raw:
        gap = -at % ALIGNMENT
        parts += (memoryview(_PADDING)[:gap], one)
        at += gap + len(one)
    if at > MOST_BYTES:
        raise InvalidInput(f"a message may have {MOST_BYTES} bytes, this has {at}; send it in parts")
    return [part for part in parts if len(part)]


def _split(message: memoryview) -> tuple[memoryview, Sequence[memoryview]]:
    (count,) = _LENGTH.unpack_from(message)
    pickled, *lengths = struct.unpack_from(f"<{count}Q", message, _LENGTH.size)
    at = _LENGTH.size * (1 + count)
    body, buffers = message[at : at + pickled], []
    at += pickled
    for length in lengths:
        at += -at % ALIGNMENT
        buffers.append(message[at : at + length])
        at += length
    return body, buffers


class _TooLong(Exception):
    """More than can be packed on the event loop."""


class _Sink:
    """A file for the pickler. It is written in Python on purpose: ``pickle.dumps`` never lets another thread run, while
    this is called every 64 KB, where the interpreter may switch."""

    def __init__(self, limit: int | None) -> None:
        self.parts: list[memoryview] = []
        self.size = 0
        self._limit = limit

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise _TooLong
        self.parts.append(memoryview(bytes(data)))  # a memoryview here lives no longer than this call
        return len(data)


class _Source:
    """A file for the unpickler, in Python for the same reason."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        start, self._at = self._at, min(self._at + size, len(self._data))
        return bytes(self._data[start : self._at])

    def readinto(self, into: memoryview) -> int:
        read = self.read(len(into))
        into[: len(read)] = read
        return len(read)

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("the pickle is damaged: protocol 5 has no lines")
