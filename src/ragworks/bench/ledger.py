"""What the server promised, and every way in which what it shows differs from that.

The client does one thing at a time, and repeats what was not answered before it does another. So each document has a
line of stamps: every submission gets the next one, and puts it into the metadata. A document may show the stamp of any
submission that was sent, but none before what was seen or completed, and nothing that an acknowledged delete covers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ragworks.bench.documents import Documents, Key
from ragworks.bench.folder import Shown

NOTED = 20


@dataclass
class Batch:
    """One submission. Until it is acknowledged, it is sent again exactly as it was."""

    collection: str
    stamp: int
    editions: Mapping[Key, int]
    idempotency_key: str | None
    times_sent: int = 0


@dataclass
class Ledger:
    """Stamps by document: ``settled`` must be there, ``seen`` was, ``gone`` and all before are deleted for good."""

    documents: Documents
    editions: dict[Key, dict[int, int]] = field(default_factory=dict)
    settled: dict[Key, int] = field(default_factory=dict)
    seen: dict[Key, int] = field(default_factory=dict)
    gone: dict[Key, int] = field(default_factory=dict)
    going: dict[Key, int] = field(default_factory=dict)  # under way: may have happened, or may yet
    jobs: dict[str, Batch] = field(default_factory=dict)
    cancelling: set[str] = field(default_factory=set)  # jobs whose cancel was sent
    stopped: set[tuple[Key, int]] = field(default_factory=set)  # ended as cancelled: shown by now, or never
    never: set[tuple[Key, int]] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def fault(self, kind: str, note: str) -> None:
        self.faults[kind] += 1
        if len(self.notes) < NOTED:
            self.notes.append(f"{kind}: {note}")

    # what the client did

    def send(self, batch: Batch) -> None:
        batch.times_sent += 1
        for key, edition in batch.editions.items():
            self.editions.setdefault(key, {})[batch.stamp] = edition

    def acknowledge(self, job_id: str, batch: Batch) -> None:
        self.jobs[job_id] = batch

    def delete(self, keys: Iterable[Key]) -> None:
        """A delete is about to be sent."""
        self.going = {key: max(self.editions[key]) for key in keys if key in self.editions}

    def deleted(self) -> None:
        """The delete was acknowledged: what it covers must stay away."""
        self.gone.update(self.going)
        self.going = {}

    def settle(self, job_id: str, states: Mapping[str, str]) -> None:
        """A job has ended; from here on what it brought must be there."""
        batch = self.jobs.pop(job_id)
        for key in batch.editions:
            state = states.get(key[1])
            if state == "completed":
                self.settled[key] = max(batch.stamp, self.settled.get(key, 0))
            elif state == "cancelled" and self._may_be_cancelled(job_id, key, batch.stamp):
                if batch.times_sent == 1 or batch.idempotency_key:  # else another job may hold it too
                    self.stopped.add((key, batch.stamp))
            else:
                self.fault("lost", f"{key} was acknowledged and ended as {state}")

    def _may_be_cancelled(self, job_id: str, key: Key, stamp: int) -> bool:
        return job_id in self.cancelling or max(self.gone.get(key, 0), self.going.get(key, 0)) >= stamp

    # what the server shows

    def must_show(self, key: Key) -> bool:
        return self._due(key) > max(self.gone.get(key, 0), self.going.get(key, 0))

    def must_not_show(self, key: Key) -> bool:
        """Nothing was sent after a delete that was acknowledged."""
        return key in self.gone and self.gone[key] == max(self.editions[key])

    def compare(self, shown: Mapping[Key, Shown]) -> None:
        """Check every visible document, and that what must be visible is."""
        for key in self.editions:
            if key not in shown:
                self._absent(key)
        for key, found in shown.items():
            self._present(key, found)
        for key, stamp in self.stopped:
            if key not in shown or shown[key].stamp < stamp:
                self.never.add((key, stamp))
        self.stopped.clear()

    def _absent(self, key: Key) -> None:
        if self.must_show(key):
            self.fault("lost", f"{key} is not there")
        elif self._due(key) > self.gone.get(key, 0):
            self.gone[key] = self.going[key]  # it was there: the delete under way has happened, and stays so

    def _present(self, key: Key, found: Shown) -> None:
        edition = self.editions.get(key, {}).get(found.stamp)
        if key not in self.editions:
            self.fault("orphans", f"{key} was never submitted")
            return
        repeated = len(found.read.chunks) - len({(start, end) for start, end, _ in found.read.chunks})
        if repeated:
            self.fault("duplicates", f"{key} shows {repeated} chunks twice")
        whole = edition is not None and self.documents.read(key, edition) == found.read
        if not whole or found.chunk_count != len(found.read.chunks):
            self.fault("half_visible", f"{key} says stamp {found.stamp} and is not what was sent with it")
        elif found.stamp <= self.gone.get(key, 0) or (key, found.stamp) in self.never:
            self.fault("undeleted", f"{key} came back with stamp {found.stamp}")
        elif found.stamp < self._due(key):
            self.fault("lost", f"{key} went back from stamp {self._due(key)} to {found.stamp}")
        else:
            self.seen[key] = found.stamp

    def _due(self, key: Key) -> int:
        """The least stamp that the document shows, if it shows any."""
        return max(self.settled.get(key, 0), self.seen.get(key, 0))
