"""The judge of the crash benchmark finds each kind of fault, and finds none where there is none."""

from __future__ import annotations

import pytest

from ragworks.bench.documents import Documents, Key
from ragworks.bench.folder import Shown
from ragworks.bench.ledger import Batch, Ledger

DOCUMENTS = Documents(seed=1, count=8)
KEY, OTHER = DOCUMENTS.keys[:2]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(DOCUMENTS)


def put(ledger: Ledger, stamp: int, *keys: Key, state: str | None = None, repeated: bool = False) -> None:
    """Submit new words with a stamp; with a state, the job has ended in it."""
    batch = Batch(KEY[0], stamp, dict.fromkeys(keys or (KEY,), stamp), None)
    for _ in range(2 if repeated else 1):
        ledger.send(batch)
    ledger.acknowledge(f"job {stamp}", batch)
    if state:
        ledger.settle(f"job {stamp}", {key[1]: state for key in batch.editions})


def delete(ledger: Ledger, *keys: Key, answered: bool = True) -> None:
    ledger.delete(keys or (KEY,))
    if answered:
        ledger.deleted()


def whole(stamp: int, key: Key = KEY, edition: int | None = None) -> dict[Key, Shown]:
    """The document as it must be with a stamp."""
    read = DOCUMENTS.read(key, edition or stamp)
    return {key: Shown(read, stamp, len(read.chunks))}


def faults(ledger: Ledger, shown: dict[Key, Shown]) -> dict[str, int]:
    ledger.compare(shown)
    return dict(ledger.faults)


def test_what_was_acknowledged_may_be_on_its_way(ledger: Ledger) -> None:
    put(ledger, 1)
    assert faults(ledger, {}) == {}
    assert faults(ledger, whole(1)) == {}


def test_what_completed_is_lost_when_it_is_not_there(ledger: Ledger) -> None:
    put(ledger, 1, state="completed")
    assert faults(ledger, {}) == {"lost": 1}


def test_what_was_seen_is_lost_when_it_is_not_there(ledger: Ledger) -> None:
    put(ledger, 1)
    ledger.compare(whole(1))
    assert faults(ledger, {}) == {"lost": 1}


def test_what_was_replaced_must_not_come_back(ledger: Ledger) -> None:
    put(ledger, 1, state="completed")
    put(ledger, 2)
    assert faults(ledger, whole(1)) == {}
    assert faults(ledger, whole(2)) == {}
    assert faults(ledger, whole(1)) == {"lost": 1}


def test_words_of_one_version_with_the_metadata_of_another_are_a_mixture(ledger: Ledger) -> None:
    put(ledger, 1)
    put(ledger, 2)
    assert faults(ledger, whole(2, edition=1)) == {"half_visible": 1}


def test_a_missing_chunk_is_half_a_document_and_a_repeated_one_a_duplicate(ledger: Ledger) -> None:
    put(ledger, 1)
    found = whole(1)[KEY]
    short = Shown(type(found.read)(found.read.text, found.read.chunks[:-1]), 1, found.chunk_count)
    assert faults(ledger, {KEY: short}) == {"half_visible": 1}
    doubled = Shown(type(found.read)(found.read.text, found.read.chunks * 2), 1, 2 * found.chunk_count)
    assert faults(ledger, {KEY: doubled})["duplicates"] == 1


def test_a_document_that_nobody_sent_is_an_orphan(ledger: Ledger) -> None:
    assert faults(ledger, whole(1)) == {"orphans": 1}


def test_a_delete_under_way_may_have_happened_or_not(ledger: Ledger) -> None:
    put(ledger, 1, KEY, OTHER, state="completed")
    delete(ledger, KEY, OTHER, answered=False)
    assert faults(ledger, whole(1, OTHER)) == {}
    assert faults(ledger, {}) == {}


def test_a_delete_that_was_seen_to_have_happened_stays(ledger: Ledger) -> None:
    put(ledger, 1, state="completed")
    delete(ledger, answered=False)
    ledger.compare({})
    assert faults(ledger, whole(1)) == {"undeleted": 1}


def test_an_acknowledged_delete_stays_and_what_is_put_after_it_is_new(ledger: Ledger) -> None:
    put(ledger, 1, state="completed")
    delete(ledger)
    assert faults(ledger, {}) == {}
    put(ledger, 2)
    assert faults(ledger, whole(2)) == {}
    assert faults(ledger, whole(1)) == {"undeleted": 1}


def test_a_delete_cancels_what_waits_and_nothing_else_may(ledger: Ledger) -> None:
    put(ledger, 1)
    delete(ledger)
    ledger.settle("job 1", {KEY[1]: "cancelled"})
    assert faults(ledger, {}) == {}
    put(ledger, 2, state="cancelled")
    assert ledger.faults == {"lost": 1}


def test_a_cancelled_document_that_is_not_there_never_comes(ledger: Ledger) -> None:
    put(ledger, 1)
    ledger.cancelling.add("job 1")
    ledger.settle("job 1", {KEY[1]: "cancelled"})
    assert faults(ledger, {}) == {}
    assert faults(ledger, whole(1)) == {"undeleted": 1}


def test_a_document_cancelled_after_it_was_shown_may_stay(ledger: Ledger) -> None:
    put(ledger, 1)
    ledger.cancelling.add("job 1")
    ledger.settle("job 1", {KEY[1]: "cancelled"})
    assert faults(ledger, whole(1)) == {}
    assert faults(ledger, whole(1)) == {}


def test_of_a_submission_that_was_repeated_another_job_may_go_on(ledger: Ledger) -> None:
    put(ledger, 1, repeated=True)
    ledger.cancelling.add("job 1")
    ledger.settle("job 1", {KEY[1]: "cancelled"})
    assert faults(ledger, {}) == {}
    assert faults(ledger, whole(1)) == {}


def test_a_failed_document_is_lost(ledger: Ledger) -> None:
    put(ledger, 1, state="failed")
    assert ledger.faults == {"lost": 1}
