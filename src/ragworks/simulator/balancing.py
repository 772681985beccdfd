"""Balancing strategies against recorded requests: replicas that queue, slow down and fail, on a virtual clock.

Drives ``control.replicas.ReplicaSet`` itself, so that what is measured is what serves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush, heapreplace
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragworks.control.replicas import Outcome, Pick, ReplicaSet
from ragworks.errors import InvalidInput
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.simulator.demand import work_of
from ragworks.simulator.traces import Requests

Case = Literal["steady", "long", "blackhole", "flapping"]
Profile = Literal["generate", "embed"]
Floats = NDArray[np.float64]

REPLICAS = 6
PACE, DEGRADED_PACE = 3.0, 4.0
"""Times slower than the others are replica 0 all the time, and replica 1 for a while."""

ERROR_S = 0.005
"""How soon replica 2 answers with an error while it is a black hole."""

FLAPS = 10
"""How often it is a black hole and well again in the flapping case."""

REPETITIONS = 4
REPORT_S = 1.0
"""How often replicas tell how busy they are, in per cent of their slots."""

NEVER = (np.inf, np.inf)

KNOWS = {
    "random": "nothing",
    "round_robin": "nothing",
    "least_connections": "own calls in flight",
    "p2c": "own calls in flight",
    "response_time": "own calls in flight and how long answers took",
    "resource_usage": f"busy slots of each replica, told every {REPORT_S:g} s",
    "adaptive": "slots, own calls in flight and since when, how long answers took",
}
"""What of the simulation each strategy sees. None sees speeds, output lengths, or the calls of other balancers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens, whoever balances: when requests come, their work in seconds at pace 1, and who is slow or fails
    between which seconds; within those it fails and is well in turns of ``turn_s``. Figures are of the requests from
    ``counted`` on."""

    t: Floats
    work: Floats
    cost: Floats
    slots: int
    slow: tuple[float, float]
    errors: tuple[float, float]
    counted: int
    turn_s: float = np.inf

    def pace(self, replica: int, now: float) -> float:
        if replica == 0:
            return PACE
        return DEGRADED_PACE if replica == 1 and self.slow[0] <= now < self.slow[1] else 1.0

    def fails(self, replica: int, now: float) -> bool:
        if replica != 2 or not self.errors[0] <= now < self.errors[1]:
            return False
        return (now - self.errors[0]) // self.turn_s % 2 == 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of the requests that count: seconds until each was answered, and which ended in an error."""

    seconds: Floats
    failed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy beside the oracle. Seconds are of answers, not of errors; ``knows`` is what it could see."""

    strategy: str
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    error_rate: float
    mean_ratio: float
    p99_ratio: float
    knows: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def plan(requests: Requests, profile: Profile, rho: float, case: Case) -> Plan:
    """The requests on a time axis such that their work is ``rho`` of what the replicas can do; InvalidInput if none."""
    if not 0.0 < rho < 1.0:
        raise InvalidInput(f"rho, the share of what the replicas can do, must lie between 0 and 1, found {rho:g}")
    if profile == "generate":
        work, slots = work_of(requests.tokens_in, requests.tokens_out), 8
    else:
        work, slots = 0.005 + 0.00004 * requests.tokens_in, 1
    t, cost, counted = requests.t - requests.t[0], requests.tokens_in, 0
    if not t[-1]:
        raise InvalidInput("all requests of the trace come at the same second; their times must differ to be rescaled")
    length = float(work.sum()) / (rho * slots * (REPLICAS - 1 + 1 / PACE))
    t = t * (length / t[-1])
    slow, errors, turn_s = (0.4 * length, 0.4 * length + length / 6), NEVER, np.inf
    if case == "long":
        counted, start = (REPETITIONS - 1) * len(t), (REPETITIONS - 1) * length
        t = np.concatenate([t + repetition * length for repetition in range(REPETITIONS)])
        work, cost = np.tile(work, REPETITIONS), np.tile(cost, REPETITIONS)
        slow = (start + length / 3, start + 2 * length / 3)
    elif case == "blackhole":
        slow, errors = NEVER, (0.5 * length, 0.6 * length)
    elif case == "flapping":
        slow, errors, turn_s = NEVER, (0.4 * length, 0.6 * length), 0.2 * length / (2 * FLAPS)
    return Plan(t, work, cost, slots, slow, errors, counted, turn_s)


def compare(
    plan: Plan,
    strategies: Sequence[str],
    *,
    balancers: int = 1,
    seed: int = 0,
    ejecting: EjectSettings | None = None,
    sized: bool = True,
    progress: Callable[[str], None] = lambda strategy: None,
) -> tuple[Row, list[Row]]:
    """The oracle's row, and one of each strategy. Unless ``sized``, nobody is told the input tokens of a request."""
    best = oracle(plan)
    told = row("oracle", best, best, "all sizes, speeds and failures")
    rows = []
    for strategy in strategies:
        progress(strategy)
        found = simulate(plan, strategy, balancers=balancers, seed=seed, ejecting=ejecting, sized=sized)
        knows = KNOWS[strategy] + (", input tokens" if sized and strategy == "adaptive" else "")
        rows.append(row(strategy, found, best, knows))
    return told, rows


def row(strategy: str, found: Outcomes, best: Outcomes, knows: str) -> Row:
    answers, theirs = found.seconds[~found.failed], best.seconds[~best.failed]
    mean, p99 = float(answers.mean()), _quantile(answers, 0.99)
    return Row(
        strategy=strategy,
        mean_s=mean,
        p50_s=_quantile(answers, 0.5),
        p95_s=_quantile(answers, 0.95),
        p99_s=p99,
        error_rate=float(found.failed.mean()),
        mean_ratio=mean / float(theirs.mean()),
        p99_ratio=p99 / _quantile(theirs, 0.99),
        knows=knows,
    )


def simulate(
    plan: Plan,
    strategy: str,
    *,
    balancers: int = 1,
    seed: int = 0,
    ejecting: EjectSettings | None = None,
    sized: bool = True,
) -> Outcomes:
    """Each request goes to one of the balancers at random, and each balancer sees only what it sent itself."""
    rng = Random(seed)
    settings, ejecting = BalanceSettings(strategy), ejecting or EjectSettings()
    sets = [ReplicaSet(settings, ejecting, Random(rng.random())) for _ in range(balancers)]
    for one in sets:
        for replica in range(REPLICAS):
            one.add(str(replica), 0.0, slots=plan.slots)
    servers, report_at = _Servers(plan), 0.0
    running: list[tuple[float, int, Pick, Outcome]] = []
    seconds, failed = np.empty(len(plan.t)), np.zeros(len(plan.t), dtype=bool)
    requests = zip(plan.t.tolist(), plan.work.tolist(), plan.cost.tolist(), strict=True)
    for place, (now, work, cost) in enumerate(requests):
        while running and running[0][0] <= now:
            end, _, pick, outcome = heappop(running)
            pick.release(end, outcome)
        if now >= report_at:
            _report(sets, servers, now)
            report_at = now + REPORT_S
        picked = sets[int(rng.random() * balancers)].pick(now, cost=cost if sized else None)
        assert picked is not None, "no replica of a simulation ever leaves"
        replica = int(picked.replica_id)
        failed[place] = plan.fails(replica, now)
        end = now + ERROR_S if failed[place] else servers.take(replica, now, work)[1]
        seconds[place] = end - now
        heappush(running, (end, place, picked, Outcome.FAILED if failed[place] else Outcome.OK))
    return Outcomes(seconds[plan.counted :], failed[plan.counted :])


def oracle(plan: Plan) -> Outcomes:
    """Knows every size and the speed of now, and sends each request where it will finish first, if speeds last."""
    servers = _Servers(plan)
    lines = [_Line(plan.slots) for _ in range(REPLICAS)]
    seconds = np.empty(len(plan.t))
    for place, (now, work) in enumerate(zip(plan.t.tolist(), plan.work.tolist(), strict=True)):
        ends = [
            np.inf if plan.fails(replica, now) else line.finish(now, work, plan.pace(replica, now))
            for replica, line in enumerate(lines)
        ]
        best = ends.index(min(ends))
        begin, end = servers.take(best, now, work)
        lines[best].join(begin, end, work)
        seconds[place] = end - now
    return Outcomes(seconds[plan.counted :], np.zeros(len(seconds) - plan.counted, dtype=bool))


class _Servers:
    """First come, first served within each replica, so that the end of a request is known as it comes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._free_at = [[0.0] * plan.slots for _ in range(REPLICAS)]

    def take(self, replica: int, now: float, work: float) -> tuple[float, float]:
        """When the request begins, and when it ends."""
        begin = max(now, self._free_at[replica][0])
        end = begin + work * self._plan.pace(replica, begin)
        heapreplace(self._free_at[replica], end)
        return begin, end

    def busy_percent(self, replica: int, now: float) -> float:
        ends = self._free_at[replica]
        return 100.0 * sum(end > now for end in ends) / len(ends)


class _Line:
    """What the oracle sees of one replica: the ends of what is served, and the work that waits, in order."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._serving: list[float] = []
        self._waiting: deque[tuple[float, float, float]] = deque()
        self._waiting_work = 0.0

    def join(self, begin: float, end: float, work: float) -> None:
        self._waiting.append((begin, end, work))
        self._waiting_work += work

    def finish(self, now: float, work: float, pace: float) -> float:
        """When a request that comes now would end, if the replica stayed as fast as it is."""
        while self._waiting and self._waiting[0][0] <= now:
            _, end, begun = self._waiting.popleft()
            self._waiting_work -= begun
            heappush(self._serving, end)
        while self._serving and self._serving[0] <= now:
            heappop(self._serving)
        if len(self._serving) < self._slots:
            return now + work * pace
        if self._slots == 1:  # the sum says the same, and lines grow long
            return self._serving[0] + (self._waiting_work + work) * pace
        ends = self._serving.copy()
        for _, _, before in self._waiting:
            heapreplace(ends, ends[0] + before * pace)
        return ends[0] + work * pace


def _report(sets: Sequence[ReplicaSet], servers: _Servers, now: float) -> None:
    for replica in range(REPLICAS):
        for one in sets:
            one.note_usage(str(replica), servers.busy_percent(replica, now), None)


def _quantile(values: Floats, share: float) -> float:
    return float(np.sort(values)[min(int(len(values) * share), len(values) - 1)])
