"""Messages over a socket, several at a time: a long one never holds up a short one of another call.

A message goes in frames of at most 256 KB, in turns with the messages of other calls; those of one call keep their
order. What has to be sent is handed to the kernel as it lies in memory, and what comes is read to where it stays.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

FRAME_BYTES = 256 * 1024
NEAR_BYTES = 16 * 1024  # what is read into one place until it is known where it belongs
NEAR_BESIDE_BYTES = 1024  # the same while a long message comes in, whose next bytes these mostly are
MAPPED_BYTES = 1024 * 1024  # from here memory comes by pages as they are filled: clearing 64 MB takes 20 ms
MOST_PARTS = 512  # of one system call; the kernel takes 1024
_HEADER = struct.Struct("<QQII")  # call, bytes of the message, bytes of it in this frame, kind

OnMessage = Callable[[int, int, memoryview], None]
"""Called with the call, the kind and the read-only message."""


class Channel:
    """One end. Lives on the event loop that makes it; ``on_end`` is called once, if the other end closes or breaks."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_end: Callable[[], None]) -> None:
        self._socket, self._on_message, self._on_end = sock, on_message, on_end
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._lanes: dict[int, deque[_Outgoing]] = {}
        self._leaving: list[memoryview] = []
        self._writing = False
        self._near = memoryview(bytearray(NEAR_BYTES))
        self._held = 0
        self._coming: dict[int, _Incoming] = {}
        self._into: _Incoming | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def send(self, call: int, kind: int, parts: Sequence[memoryview] = ()) -> None:
        """Send it behind what this call sent before. The parts must not change until it is gone."""
        if not self._open:
            return
        message = _Outgoing(call, kind, parts)
        if lane := self._lanes.get(call):
            lane.append(message)
        else:
            self._lanes[call] = deque((message,))
        if not self._writing:
            self._write()

    def withdraw(self, call: int) -> bool:
        """Take back the only message of the call, if not a byte of it has been sent."""
        lane = self._lanes.get(call)
        if lane is None or len(lane) > 1 or lane[0].begun:
            return False
        del self._lanes[call]
        return True

    def close(self) -> None:
        """Harmless when it is closed already."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._lanes.clear()
        self._leaving.clear()

    def finish(self) -> None:
        """Take in what the other end, which is gone, has sent; this ends the channel."""
        while self._open and self._readable():
            pass
        self._end()

    def _write(self) -> None:
        if not self._leaving:
            self._load()
        try:
            sent = self._socket.sendmsg(self._leaving[:MOST_PARTS])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the other end is gone, and may have answered before
            self.finish()
            return
        self._passed(sent)
        more = bool(self._leaving or self._lanes)
        if more and not self._writing:
            self._loop.add_writer(self._socket, self._write)
        elif self._writing and not more:
            self._loop.remove_writer(self._socket)
        self._writing = more

    def _load(self) -> None:
        """Take a frame's worth from the lanes, in turns."""
        room = FRAME_BYTES
        while room >= NEAR_BYTES and self._lanes:
            call = next(iter(self._lanes))
            lane = self._lanes.pop(call)
            room -= lane[0].frame(self._leaving, room)
            if not lane[0].left:
                lane.popleft()
            if lane:
                self._lanes[call] = lane

    def _passed(self, sent: int) -> None:
        done = 0
        while done < len(self._leaving) and sent >= len(self._leaving[done]):
            sent -= len(self._leaving[done])
            done += 1
        del self._leaving[:done]
        if sent:
            self._leaving[0] = self._leaving[0][sent:]

    def _readable(self) -> bool:
        """Read once; False when there is nothing."""
        rest = self._into.frame if self._into else memoryview(b"")
        try:
            if len(rest):
                read = self._socket.recvmsg_into([rest, self._near[:NEAR_BESIDE_BYTES]])[0]
            else:
                read = self._socket.recv_into(self._near[self._held :])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            read = 0
        if not read:
            self._end()
            return False
        if self._into:
            here = min(read, len(rest))
            self._into.advance(here)
            self._deliver(self._into)
            read -= here
        self._held += read
        self._sort()
        return True

    def _sort(self) -> None:
        """Give every frame in ``_near`` to its message, and keep the beginning of the next."""
        at = 0
        while self._open and self._held - at >= _HEADER.size:
            call, total, length, kind = _HEADER.unpack_from(self._near, at)
            at += _HEADER.size
            message = self._coming.get(call)
            if message is None:
                message = self._coming[call] = _Incoming(call, kind, total)
            message.expect(length)
            here = min(length, self._held - at)
            message.frame[:here] = self._near[at : at + here]
            message.advance(here)
            at += here
            self._into = message
            self._deliver(message)
        self._held -= at
        if at and self._held:
            self._near[: self._held] = bytes(self._near[at : at + self._held])

    def _deliver(self, message: _Incoming) -> None:
        if len(message.frame):
            return
        self._into = None
        if message.at == message.total:
            del self._coming[message.call]
            self._on_message(message.call, message.kind, message.data.toreadonly())

    def _end(self) -> None:
        if self._open:
            self.close()
            self._on_end()


class _Outgoing:
    __slots__ = ("begun", "call", "kind", "left", "parts", "total")

    def __init__(self, call: int, kind: int, parts: Sequence[memoryview]) -> None:
        self.call, self.kind, self.parts = call, kind, deque(parts)
        self.total = self.left = sum(map(len, parts))
        self.begun = False

    def frame(self, leaving: list[memoryview], room: int) -> int:
        """Move one frame of at most so many bytes; how many it has."""
        length = min(self.left, room)
        self.begun, self.left = True, self.left - length
        leaving.append(memoryview(_HEADER.pack(self.call, self.total, length, self.kind)))
        taken = 0
        while taken < length:
            part = self.parts.popleft()
            if len(part) > length - taken:
                self.parts.appendleft(part[length - taken :])
                part = part[: length - taken]
            leaving.append(part)
            taken += len(part)
        return length + _HEADER.size


class _Incoming:
    __slots__ = ("at", "call", "data", "frame", "kind", "total")

    def __init__(self, call: int, kind: int, total: int) -> None:
        self.call, self.kind, self.total = call, kind, total
        self.data = memoryview(mmap.mmap(-1, total) if total >= MAPPED_BYTES else bytearray(total))
        self.at = 0
        self.frame = self.data[:0]
        """What is still to come of the frame that comes."""

    def expect(self, length: int) -> None:
        self.frame = self.data[self.at : self.at + length]

    def advance(self, read: int) -> None:
        self.at += read
        self.frame = self.frame[read:]
