"""The processes of the server: how many there are, what they take, and the CPU time of those that are gone."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

SERVER, REPLICA, WORKER = KINDS = ("server", "replica", "worker")

Key = tuple[int, float]
"""The id of a process and when it was created: ids come again."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What all processes of one kind take together. Pages that they share count once for each."""

    processes: int = 0
    memory_bytes: int = 0


class CpuLedger:
    """CPU seconds of child processes by kind, which only grow. ``reaped_s`` is that of all that are gone, so far.

    What a child used between the last look at it and its end is found in ``reaped_s``, together with that of others
    which ended meanwhile: then it is put down to workers, which end more often.
    """

    def __init__(self, reaped_s: float) -> None:
        self.seconds = dict.fromkeys((REPLICA, WORKER), 0.0)
        self._reaped_before_s = reaped_s
        self._seen: Mapping[Key, tuple[str, float]] = {}
        self._ended_kind = WORKER

    def note(self, alive: Mapping[Key, tuple[str, float]], reaped_s: float) -> None:
        """``alive`` are kind and CPU seconds of each child. ``reaped_s`` must have been read before: a child that is
        in both would count twice; one that is in neither is found the next time."""
        if ended := {kind for key, (kind, _) in self._seen.items() if key not in alive}:
            self._ended_kind = REPLICA if ended == {REPLICA} else WORKER
        used_s = reaped_s - self._reaped_before_s + sum(cpu_s for _, cpu_s in alive.values())
        news_s = max(0.0, used_s - sum(self.seconds.values()))
        for key, (kind, cpu_s) in alive.items():
            grown_s = min(news_s, max(0.0, cpu_s - self._seen.get(key, (kind, 0.0))[1]))
            self.seconds[kind] += grown_s
            news_s -= grown_s
        self.seconds[self._ended_kind] += news_s
        self._seen = alive


class ProcessTree:
    """``workers`` are the ids of the children that read documents; every other child is a replica.

    ``look`` may be called from any thread.
    """

    def __init__(self, workers: Callable[[], Collection[int]] = tuple) -> None:
        self._workers, self._server, self._lock = workers, psutil.Process(), threading.Lock()
        self._ledger = CpuLedger(_reaped_s())
        self.taken: Mapping[str, Taken] = {}
        self.cpu_seconds: Mapping[str, float] = dict.fromkeys(KINDS, 0.0)

    def look(self) -> None:
        """Blocks for some milliseconds: finding children reads all processes of the machine."""
        with self._lock:
            reaped_s, workers = _reaped_s(), frozenset(self._workers())
            taken = {SERVER: Taken(1, self._server.memory_info().rss), REPLICA: Taken(), WORKER: Taken()}
            alive: dict[Key, tuple[str, float]] = {}
            for root, process, memory_bytes, cpu_s in _below(self._server):
                kind = WORKER if root in workers else REPLICA
                taken[kind] = Taken(taken[kind].processes + 1, taken[kind].memory_bytes + memory_bytes)
                if process.pid == root:  # what is below it counts for it when it ends, as for us when this one does
                    alive[process.pid, process.create_time()] = kind, cpu_s
            self._ledger.note(alive, reaped_s)
            own_s = max(self.cpu_seconds[SERVER], _cpu_s(self._server, children=False))
            self.taken, self.cpu_seconds = taken, {SERVER: own_s, **self._ledger.seconds}


def _below(server: psutil.Process) -> Iterator[tuple[int, psutil.Process, int, float]]:
    """(the child of the server that it descends from, process, memory, CPU) of all below; not of those just gone."""
    parents: dict[int, int] = {}
    for process in server.children(recursive=True):  # parents come first
        try:
            parent, memory_bytes, cpu_s = process.ppid(), process.memory_info().rss, _cpu_s(process, children=True)
        except psutil.Error:
            continue
        root = parents[process.pid] = process.pid if parent == os.getpid() else parents.get(parent, parent)
        yield root, process, memory_bytes, cpu_s


def _cpu_s(process: psutil.Process, *, children: bool) -> float:
    times: Any = process.cpu_times()
    below = times.children_user + times.children_system if children else 0.0
    return float(times.user + times.system + below)


def _reaped_s() -> float:
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    return gone.ru_utime + gone.ru_stime
