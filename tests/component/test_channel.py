from __future__ import annotations

import asyncio
import pickle
import socket
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworks.runtimes.channel import FRAME_BYTES, MAPPED_BYTES, NEAR_BYTES, Channel
from ragworks.runtimes.packing import ALIGNMENT, LONG, pack, unpack
from ragworks.testing import settle, until

SIZES = st.one_of(
    st.integers(0, 200),
    st.sampled_from(
        [
            size + off
            for size in (NEAR_BYTES, FRAME_BYTES, MAPPED_BYTES, 3 * FRAME_BYTES)
            for off in (-25, -24, -1, 0, 1)
        ]
    ),
    st.integers(0, 2 * MAPPED_BYTES),
)


@dataclass
class End:
    """One end of a channel, and what came to it, in order."""

    channel: Channel | None = None
    came: list[tuple[int, int, memoryview]] = field(default_factory=list)
    ended: int = 0

    def open(self, sock: socket.socket) -> Channel:
        def end() -> None:
            self.ended += 1

        self.channel = Channel(sock, lambda *message: self.came.append(message), end)
        return self.channel


def pair() -> tuple[Channel, Channel, End]:
    ours, theirs = socket.socketpair()
    there = End()
    return End().open(ours), there.open(theirs), there


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.lists(SIZES, max_size=4)), max_size=12))
def test_messages_arrive_whole_and_those_of_one_call_in_order(messages: list[tuple[int, list[int]]]) -> None:
    async def run() -> None:
        one, other, there = pair()
        sent: list[tuple[int, int, bytes]] = []
        for kind, (call, sizes) in enumerate(messages):
            parts = [np.full(size, (kind * 7 + at) % 251, np.uint8).tobytes() for at, size in enumerate(sizes) if size]
            sent.append((call, kind, b"".join(parts)))
            one.send(call, kind, [memoryview(part) for part in parts])
        await until(lambda: len(there.came) == len(sent))
        for call in range(5):
            assert [(kind, bytes(data)) for of, kind, data in there.came if of == call] == [
                (kind, data) for of, kind, data in sent if of == call
            ]
        one.close()
        other.close()

    asyncio.run(run())


async def test_a_short_message_overtakes_a_long_one_of_another_call() -> None:
    """A question must not wait until the vectors of a folder have passed."""
    one, other, there = pair()
    one.send(1, 11, [memoryview(bytes(64_000_000))])
    one.send(2, 12, [memoryview(b"short")])
    await until(lambda: len(there.came) == 2)
    assert [kind for _, kind, _ in there.came] == [12, 11]
    one.close()
    other.close()


async def test_only_what_has_not_begun_is_taken_back() -> None:
    one, other, there = pair()
    long = memoryview(bytes(4_000_000))
    one.send(1, 11, [long])
    one.send(2, 12, [long])
    one.send(3, 13, [memoryview(b"after")])
    assert not one.withdraw(1)
    assert one.withdraw(2)
    assert not one.withdraw(2)
    await until(lambda: len(there.came) == 2)
    assert {kind for _, kind, _ in there.came} == {11, 13}
    one.close()
    other.close()


async def test_what_was_sent_before_the_end_is_heard_before_it() -> None:
    one, other, there = pair()
    one.send(1, 11, [memoryview(b"last words")])
    one.close()
    await until(lambda: there.ended)
    assert [bytes(data) for *_, data in there.came] == [b"last words"]
    other.send(1, 11, [memoryview(b"too late")])  # harmless
    assert there.ended == 1


async def test_a_message_cut_short_by_the_end_is_not_delivered() -> None:
    one, other, there = pair()
    one.send(1, 11, [memoryview(bytes(64_000_000))])
    await settle()
    one.close()
    await until(lambda: there.ended)
    assert there.came == []
    other.close()


VALUES = st.recursive(
    st.one_of(
        st.none(), st.integers(), st.text(max_size=50), st.binary(max_size=50),
        st.integers(0, 300).map(lambda size: np.arange(size, dtype=np.float32)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(VALUES)
def test_a_value_is_the_same_after_its_journey(value: Any) -> None:
    async def run() -> None:
        message = memoryview(b"".join(await pack(value))).toreadonly()
        # Compared as pickles: arrays have no truth of their own.
        assert pickle.dumps(await unpack(message)) == pickle.dumps(value)

    asyncio.run(run())


async def test_the_memory_of_an_array_is_neither_copied_nor_out_of_line() -> None:
    array = np.arange(1000, dtype=np.float32)
    parts = await pack(["name", array, array[:10]])
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts)
    message = np.frombuffer(bytearray(b"".join(parts)), np.uint8)
    found = await unpack(memoryview(message))
    for one in found[1:]:
        assert np.shares_memory(one, message)
        assert (one.ctypes.data - message.ctypes.data) % ALIGNMENT == 0


async def test_the_event_loop_runs_while_a_long_value_is_packed_and_opened() -> None:
    value = [f"passage {number} " * 5 for number in range(LONG // 10)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    parts = await pack(value)
    packed, turns = turns, 0
    assert await unpack(memoryview(b"".join(parts))) == value
    counting.cancel()
    assert packed > 1
    assert turns > 1
