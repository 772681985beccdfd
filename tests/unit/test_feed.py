"""How items are cut into batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.feed import BATCH_BYTES, BATCH_ITEMS, batches, failure

SIZES = st.lists(st.integers(0, 2 * BATCH_BYTES), max_size=300)


@given(SIZES)
def test_batches_hold_every_item_once_and_in_order(sizes):
    assert [size for batch in batches(sizes, lambda size: size) for size in batch] == sizes


@given(SIZES)
def test_a_batch_keeps_both_limits_unless_one_item_alone_breaks_them(sizes):
    for batch in batches(sizes, lambda size: size):
        assert 1 <= len(batch) <= BATCH_ITEMS
        assert len(batch) == 1 or sum(batch) <= BATCH_BYTES


def test_a_document_that_failed_without_a_reason_says_so():
    assert failure({"name": "a.md", "error": None}).message == "the server gave no reason"
