import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragworks.testing import FakeClock, settle
from ragworks.workers.cache import ENTRY_BYTES, InFlight, VectorCache

VECTOR = np.asarray([0.6, 0.8], np.float32)


async def test_a_vector_comes_back_exactly_until_its_time_is_over():
    clock = FakeClock()
    cache = VectorCache(10, 60.0, clock.monotonic)
    cache.put(b"k", VECTOR, truncated=True)
    await clock.advance(59.0)
    vector, truncated = cache.get(b"k") or (None, None)
    assert np.array_equal(vector, VECTOR)
    assert truncated is True
    await clock.advance(2.0)
    assert cache.get(b"k") is None


def test_the_least_recently_used_goes_first():
    """A cache that evicts by insertion would drop the key that was just read."""
    cache = VectorCache(2, 60.0, lambda: 0.0)
    cache.put(b"a", VECTOR, False)
    cache.put(b"b", VECTOR, False)
    cache.get(b"a")
    cache.put(b"c", VECTOR, False)
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_a_cache_of_size_zero_keeps_nothing():
    cache = VectorCache(0, 60.0, lambda: 0.0)
    cache.put(b"a", VECTOR, False)
    assert len(cache) == 0


@given(st.lists(st.integers(0, 30), max_size=100), st.integers(0, 5))
def test_it_never_holds_more_than_its_size(keys, size):
    cache = VectorCache(size, 60.0, lambda: 0.0)
    for key in keys:
        cache.put(bytes([key]), VECTOR, False)
        assert len(cache) <= size


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 400)), max_size=100), st.integers(0, 5_000))
def test_it_never_takes_more_bytes_than_it_may_nor_refuses_what_fits(items, max_bytes):
    cache = VectorCache(1000, 60.0, lambda: 0.0, max_bytes=max_bytes)
    for key, dimension in items:
        cache.put(bytes([key]), np.ones(dimension, np.float32), False)
        assert cache.bytes_held <= max_bytes
        fits = 4 * dimension + ENTRY_BYTES <= max_bytes
        assert not fits or cache.get(bytes([key])) is not None


def test_replacing_a_vector_in_a_full_cache_costs_no_other_entry():
    cache = VectorCache(2, 60.0, lambda: 0.0)
    for key in (b"a", b"b", b"b"):
        cache.put(key, VECTOR, False)
    assert len(cache) == 2


def test_clearing_forgets_all_and_says_how_many():
    cache = VectorCache(10, 60.0, lambda: 0.0)
    cache.put(b"a", VECTOR, False)
    assert (cache.clear(), len(cache), cache.bytes_held, cache.get(b"a")) == (1, 0, 0, None)


async def test_a_key_in_flight_is_claimed_once_and_its_value_reaches_all():
    flights: InFlight[int] = InFlight()
    mine, _ = flights.claim([b"a", b"b"])
    again, theirs = flights.claim([b"a", b"c"])
    assert (mine, again, list(theirs)) == ([b"a", b"b"], [b"c"], [b"a"])
    waiter = asyncio.create_task(asyncio.wait_for(asyncio.shield(theirs[b"a"]), None))
    await settle()
    flights.settle(b"a", 7)
    flights.settle(b"a", 8)
    assert await waiter == 7
    assert flights.claim([b"a"])[0] == [b"a"]
