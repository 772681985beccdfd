"""The queue against a model of it, in any order of events: nothing lost, nothing run twice, bounds and turns kept."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ragworks.policies.sharing import most_of
from ragworks.records import Load
from ragworks.types import Priority, Stage, Task, TaskState
from stores import Opened, incoming, opened

ROOM = Load(12, 10**6)
COLLECTIONS = ("default", "other")
OPEN = (TaskState.QUEUED, TaskState.IN_PROGRESS)
KEEP_S = 10_000.0


@dataclass
class Known:
    """What the model knows of one task."""

    id: str
    job: str
    collection: str
    document: str
    order: int
    state: TaskState = TaskState.QUEUED
    due_at: float = 0.0
    leased_until: float = 0.0
    attempts: int = 0
    lease: Task | None = None
    ended_at: float = 0.0


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack, self.folder = AsyncExitStack(), tempfile.TemporaryDirectory()
        self.at: Opened = self.run(self.stack.enter_async_context(opened(Path(self.folder.name) / "data")))
        self.run(self.at.rows.create_collection("other"))
        self.tasks: dict[str, Known] = {}
        self.lost: list[Task] = []
        self.submitted = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()

    @property
    def now(self) -> float:
        return self.at.clock.now()

    def of(self, *states: TaskState) -> list[Known]:
        return [one for one in self.tasks.values() if one.state in states]

    @property
    def running(self) -> list[Known]:
        return [one for one in self.of(TaskState.IN_PROGRESS) if one.leased_until > self.now]

    def blocked(self, one: Known) -> bool:
        """An earlier submission of the document is open."""
        return any(
            other.collection == one.collection and other.document == one.document and other.order < one.order
            for other in self.of(*OPEN)
        )

    def superseded(self, one: Known) -> bool:
        return any(
            (other.collection, other.document) == (one.collection, one.document) and other.order > one.order
            for other in self.of(*OPEN, TaskState.COMPLETED)
        )

    def may_start(self) -> list[Known]:
        held = Counter(one.collection for one in self.running)
        waiting = [one for one in self.of(TaskState.QUEUED) if one.due_at <= self.now]
        lapsed = [one for one in self.of(TaskState.IN_PROGRESS) if one.leased_until <= self.now]
        return [one for one in waiting + lapsed if held[one.collection] < most_of(16) and not self.blocked(one)]

    @rule(
        collection=st.sampled_from(COLLECTIONS),
        documents=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4),
        priority=st.sampled_from(("low", "normal", "high")),
    )
    def submit(self, collection: str, documents: list[str], priority: Priority) -> None:
        wanted = [incoming(one) for one in documents]
        accepted = self.run(self.at.jobs.accept(collection, wanted, ROOM, None, "", priority=priority))
        assert (accepted is None) == (len(self.of(*OPEN)) + len(documents) > ROOM.documents)
        if accepted:
            for task_id, document in zip(accepted.task_ids, documents, strict=True):
                self.submitted += 1
                self.tasks[task_id] = Known(task_id, accepted.job_id, collection, document, self.submitted)

    @rule()
    def claim(self) -> None:
        able = self.may_start()
        held = Counter(one.collection for one in self.running)
        task = self.run(self.at.jobs.claim())
        assert (task is None) == (not able)
        if task:
            one = self.tasks[task.id]
            assert one in able
            assert task.attempts == one.attempts
            if one.lease:
                self.lost.append(one.lease)
            one.state, one.lease, one.leased_until = TaskState.IN_PROGRESS, task, self.now + 300
            assert held[one.collection] + 1 <= most_of(16)

    def end(self, task: Task, state: TaskState, *, retry_in_s: float | None = None) -> None:
        one = self.tasks[task.id]
        one.state, one.lease, one.ended_at = state, None, self.now
        if retry_in_s is not None:
            one.due_at = self.now + retry_in_s

    @precondition(lambda self: self.of(TaskState.IN_PROGRESS))
    @rule(data=st.data(), how=st.sampled_from(("finish", "fail", "retry", "release", "renew")))
    def attempt_ends(self, data: st.DataObject, how: str) -> None:
        one = data.draw(st.sampled_from(self.of(TaskState.IN_PROGRESS)))
        task = one.lease
        assert task
        if how == "finish":
            assert self.run(self.at.jobs.finish(task, unchanged=False, warnings=()))
            self.end(task, TaskState.COMPLETED)
        elif how == "renew":
            assert self.run(self.at.jobs.renew([task])) == frozenset()
            one.leased_until = self.now + 300
        elif how == "release":
            self.run(self.at.jobs.release(task))
            self.end(task, TaskState.QUEUED)
        else:
            retry_in_s = 5.0 if how == "retry" else None
            assert self.run(self.at.jobs.fail(task, Stage.PARSING, "corrupt_document", "no", retry_in_s))
            self.end(task, TaskState.QUEUED if retry_in_s else TaskState.FAILED, retry_in_s=retry_in_s)
            one.attempts += 1
        if how != "renew":
            self.lost.append(task)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def an_attempt_that_lost_its_lease_speaks(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.lost))
        assert not self.run(self.at.jobs.finish(task, unchanged=False, warnings=()))
        assert not self.run(self.at.jobs.fail(task, Stage.PARSING, "corrupt_document", "late", None))
        assert self.run(self.at.jobs.renew([task])) == {task.id}

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted({one.job for one in self.tasks.values()})))
        open_now = [one for one in self.of(*OPEN) if one.job == job]
        assert self.run(self.at.jobs.cancel(job)) == {f"hash-{one.document}" for one in open_now}
        for one in open_now:
            if one.lease:
                self.lost.append(one.lease)
            one.state, one.lease, one.ended_at = TaskState.CANCELLED, None, self.now

    @rule()
    def retry_all(self) -> None:
        dead = [one for one in self.of(TaskState.FAILED) if not self.superseded(one)]
        room = ROOM.documents - len(self.of(*OPEN))
        done = self.run(self.at.jobs.retry(ROOM))
        assert (done.queued, done.left) == (min(room, len(dead)), max(0, len(dead) - room))
        for one in sorted(dead, key=lambda one: one.order)[:room]:
            one.state, one.attempts, one.due_at = TaskState.QUEUED, 0, 0.0

    @rule(seconds=st.sampled_from((1.0, 6.0, 299.0, 301.0, KEEP_S)))
    def time_passes(self, seconds: float) -> None:
        self.run(self.at.clock.advance(seconds))

    @rule()
    def the_server_dies_and_starts_again(self) -> None:
        held = self.of(TaskState.IN_PROGRESS)
        assert self.run(self.at.jobs.recover()) == len(held)
        for one in held:
            assert one.lease
            self.lost.append(one.lease)
            one.state, one.lease = TaskState.QUEUED, None

    @rule()
    def prune(self) -> None:
        before = self.now - KEEP_S
        jobs = {one.job for one in self.tasks.values()}
        kept = {one.job for one in self.tasks.values() if one.state in OPEN or one.ended_at >= before}
        while self.run(self.at.jobs.prune(before)) is not None:
            pass
        shown = {job.id for job in self.run(self.at.jobs.jobs(1000, None)).data}
        assert shown == jobs & kept
        gone = [one.id for one in self.tasks.values() if one.job not in kept]
        self.lost = [task for task in self.lost if task.id not in gone]
        for one in gone:
            del self.tasks[one]

    @invariant()
    def nothing_is_lost_and_every_state_is_as_the_model_says(self) -> None:
        shown = {
            one.task_id: (one.status, one.attempts)
            for job in {one.job for one in self.tasks.values()}
            for one in self.run(self.at.jobs.job(job)).documents
        }
        assert shown == {one.id: (one.state, one.attempts) for one in self.tasks.values()}

    @invariant()
    def the_bounds_hold(self) -> None:
        load = self.run(self.at.jobs.load())
        assert load.documents == len(self.of(*OPEN)) <= ROOM.documents

    @invariant()
    def no_document_runs_twice_at_once(self) -> None:
        running = Counter((one.collection, one.document) for one in self.running)
        assert not running or max(running.values()) == 1

    @invariant()
    def dead_letters_are_what_failed_and_was_not_submitted_again(self) -> None:
        dead = [one for one in self.of(TaskState.FAILED) if not self.superseded(one)]
        shown = self.run(self.at.jobs.dead_letters(1000, None)).data
        assert [one.task_id for one in shown] == [one.id for one in sorted(dead, key=lambda one: -one.order)]
        assert self.run(self.at.jobs.dead()) == len(dead)


QueueMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase
