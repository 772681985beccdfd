"""What `/metrics` is made of, while a child process of the server stands still."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random

import psutil

import pool_tasks
from ragworks.clock import SystemClock
from ragworks.control.group import Group, GroupSettings
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import ReplicaSpec
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.testing import until
from replica_services import Echo

NAME = "embeddings_service"


def stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def test_a_scrape_waits_for_no_child_that_was_stopped(tmp_path: Path) -> None:
    metrics, clock = Metrics(), SystemClock()
    async with WorkerPool(1) as pool, ProcessRuntime() as runtime:
        replicas = ReplicaSet(BalanceSettings(), EjectSettings(), Random(0))
        group = Group(ReplicaSpec(NAME, Echo), runtime, replicas, clock, Random(0), GroupSettings())
        machine = Machine(tmp_path, pool.pids)
        metrics.watch_replicas(NAME, group.balancer.stats, group.balancer.views, group.usages)
        metrics.watch_machine(machine)
        await group.start()
        worker = await pool.run(pool_tasks.pid, limit_s=30, max_memory_bytes=2**32)
        [replica] = group.handles.values()
        try:
            for pid in (replica.pid, worker):
                os.kill(pid, signal.SIGSTOP)
            await until(lambda: stopped(replica.pid) and stopped(worker))
            await asyncio.to_thread(machine.look)
            shown = metrics.render().decode()
            assert stopped(replica.pid)
            assert stopped(worker)
            assert f'rag_replica_memory_bytes{{replica="{replica.id}",service="{NAME}"}}' in shown
            assert 'rag_processes{kind="worker"} 1.0' in shown
        finally:
            for pid in (replica.pid, worker):
                os.kill(pid, signal.SIGCONT)
            await group.stop()
