"""CPU time by kind of process: a counter that children must not take with them when they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from hypothesis import given
from hypothesis import strategies as st

from ragworks.control.process_tree import REPLICA, SERVER, WORKER, CpuLedger, ProcessTree

KINDS = st.sampled_from((REPLICA, WORKER))
SECONDS = st.integers(0, 1000).map(lambda hundredths: hundredths / 100)

# What happens, to which of those alive, and what it uses meanwhile.
STEPS = st.tuples(
    st.sampled_from(("a replica is born", "a worker is born", "works", "ends", "look", "ends while looked at")),
    st.integers(0, 9),
    SECONDS,
)


@dataclass
class Machine:
    """Children as the kernel knows them: what each used, and what all that were reaped had used."""

    alive: dict[tuple[int, float], tuple[str, float]] = field(default_factory=dict)
    reaped_s: float = 5.0
    used: dict[str, float] = field(default_factory=lambda: dict.fromkeys((REPLICA, WORKER), 0.0))
    born: int = 0

    def step(self, what: str, which: int, seconds: float) -> None:
        if "born" in what:
            self.birth(REPLICA if "replica" in what else WORKER, seconds)
        elif what == "works":
            self.work(which, seconds)
        elif what == "ends":
            self.work(which, seconds)
            self.end(which)

    def birth(self, kind: str, seconds: float) -> None:
        self.born += 1
        self.alive[self.born % 3, float(self.born)] = kind, seconds  # few ids, so that they come again
        self.used[kind] += seconds

    def work(self, place: int, seconds: float) -> None:
        if self.alive:
            key = list(self.alive)[place % len(self.alive)]
            kind, before = self.alive[key]
            self.alive[key] = kind, before + seconds
            self.used[kind] += seconds

    def end(self, place: int) -> None:
        if self.alive:
            self.reaped_s += self.alive.pop(list(self.alive)[place % len(self.alive)])[1]


@given(st.lists(STEPS, max_size=40))
def test_cpu_time_never_goes_down_and_none_is_lost_or_counted_twice(steps: list[tuple[str, int, float]]) -> None:
    machine = Machine()
    ledger = CpuLedger(machine.reaped_s)
    for what, which, seconds in steps:
        before = dict(ledger.seconds)
        machine.step(what, which, seconds)
        if "look" in what:
            reaped_s = machine.reaped_s
            if what == "ends while looked at":
                machine.end(which)
            ledger.note(dict(machine.alive), reaped_s)
        assert all(ledger.seconds[kind] >= before[kind] for kind in before)
        assert sum(ledger.seconds.values()) <= sum(machine.used.values()) + 1e-6
    ledger.note(dict(machine.alive), machine.reaped_s)
    assert abs(sum(ledger.seconds.values()) - sum(machine.used.values())) < 1e-6


@given(st.lists(st.tuples(KINDS, SECONDS, SECONDS), min_size=1, max_size=12))
def test_what_a_child_used_after_the_last_look_goes_to_its_kind(lives: list[tuple[str, float, float]]) -> None:
    machine = Machine()
    ledger = CpuLedger(machine.reaped_s)
    for kind, seen_s, unseen_s in lives:
        machine.birth(kind, seen_s)
        ledger.note(dict(machine.alive), machine.reaped_s)
        machine.work(0, unseen_s)
        machine.end(0)
        ledger.note(dict(machine.alive), machine.reaped_s)
        assert all(abs(ledger.seconds[one] - machine.used[one]) < 1e-6 for one in machine.used)


def test_a_child_that_one_look_missed_is_not_counted_anew() -> None:
    ledger = CpuLedger(0.0)
    child = {(7, 1.0): (REPLICA, 10.0)}
    for alive in (child, {}, child):
        ledger.note(alive, 0.0)
    assert ledger.seconds == {REPLICA: 10.0, WORKER: 0.0}


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has run ``code`` and now waits for its input to end."""
    command = [sys.executable, "-c", f"{code}\nprint(flush=True)\nimport sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        yield process


BUSY = "import time\nwhile time.process_time() < 0.3: pass"
WITH_A_BUSY_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


def test_real_children_are_told_apart_and_keep_their_time_when_they_are_gone() -> None:
    workers: list[int] = []
    tree = ProcessTree(lambda: workers)
    tree.look()
    before = tree.taken
    with child(BUSY) as replica, child(WITH_A_BUSY_CHILD) as worker:
        workers.append(worker.pid)
        tree.look()
        assert tree.taken[SERVER].processes == 1
        assert {kind: tree.taken[kind].processes - before[kind].processes for kind in (REPLICA, WORKER)} == {
            REPLICA: 1,
            WORKER: 1,
        }
        assert tree.taken[REPLICA].memory_bytes >= psutil.Process(replica.pid).memory_info().rss // 2
        seen = dict(tree.cpu_seconds)
        assert seen[REPLICA] >= 0.29  # in ticks of 0.01 s
        assert seen[SERVER] > 0
    tree.look()
    assert tree.taken[WORKER].processes == before[WORKER].processes
    assert tree.cpu_seconds[WORKER] >= 0.29  # of its child, which was seen by nobody
    assert all(tree.cpu_seconds[kind] >= seen[kind] for kind in seen)


def test_a_stopped_child_holds_up_no_look() -> None:
    tree = ProcessTree()
    with child("pass") as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            tree.look()
            assert tree.taken[REPLICA].processes >= 1
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
