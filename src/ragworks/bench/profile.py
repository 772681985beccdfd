"""Measures what answers cost a running server: seconds by service one after another, answers a second when several are
asked at once, and seconds when they are asked at random times. The server is asked as any client asks, and looked at
as any user of its machine can.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate, count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil

from ragworks.bench.caller import ANSWER_S, Caller, Json, checked
from ragworks.bench.machine import available_cores, busy_s, machine
from ragworks.bench.questions import VARIED, documents, taken, varied
from ragworks.bench.server import Server, Stuck
from ragworks.errors import InvalidInput, ServerProblem, ServerUnreachable, TooManyQuestions
from ragworks.simulator.profiles import SERVER, Lives, Measured, Profile, Round, Source

ROUNDS = 5
"""What slows the machine for a while slows all that is measured in one round, and shows as a difference of rounds."""
AT_ONCE = (2, 4, 8, 16)
WARM_UP = 20
LOADS = {0.4: 2, 0.85: 6}
"""Questions that come at random: their rate, as a share of that with the most at once, and their number, as a multiple
of those one after another. A light load, at which few meet, and a heavy one, for long enough that they queue."""
FEWEST = ROUNDS * 2
TEXTS = 50
OWN_DOCUMENTS = 200
POLL_S = 0.1
TAKING_IN_S = 300.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
STEPS = {
    "embeddings_service": ("embed",),
    "retrieval_service": ("retrieve", "rerank"),
    "generation_service": ("generate",),
}
"""The services of the way, and what the server calls their part of an answer; the rest of it is the API's."""

OnCall = Callable[[int, int], None]
"""Told how many questions were answered, of how many."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``slots``: calls at once of services elsewhere, by name. ``questions`` may be empty: then the documents' own
    words are asked for."""

    kind: str
    calls: int
    collection: str = "default"
    questions: tuple[str, ...] = ()
    slots: Mapping[str, int] = field(default_factory=dict)


@asynccontextmanager
async def own_server(folder: Path, arguments: Sequence[str]) -> AsyncIterator[str]:
    """The URL of a server on a new folder, with notes of its own and the settings of the working directory.

    Raises ServerUnreachable if it does not come up.
    """
    server = Server(folder, "data", os.environ, *arguments, where=Path.cwd())
    try:
        url = await server.ready()
        async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S, trust_env=False) as http:
            path = "/v1/collections/default/documents"
            receipt = await _json(http, "POST", path, json={"documents": documents(OWN_DOCUMENTS)})
            job: Json = {"finished_at": None}
            async with asyncio.timeout(TAKING_IN_S):
                while job["finished_at"] is None:
                    await asyncio.sleep(POLL_S)
                    job = await _json(http, "GET", f"/v1/jobs/{receipt['processing_job_id']}")
        if job["status"] != "completed":
            errors = [one["error"] for one in job["documents"] if one["error"]]
            raise ServerUnreachable(f"a server of its own took in no documents: {errors[:1]}")
        yield url
    except (Stuck, TimeoutError) as error:
        raise ServerUnreachable(f"a server of its own was to be measured: {error}") from error
    finally:
        if not server.dead:
            server.stop()


async def profile(url: str, wanted: Wanted, on_call: OnCall = lambda done, total: None) -> Profile:
    """What the server at ``url`` takes for answers, alone and at once.

    Raises InvalidInput where there is nothing to ask about, ServerProblem and ServerUnreachable.
    """
    if wanted.calls < FEWEST:
        raise InvalidInput(f"--calls must be {FEWEST} or more, found {wanted.calls}")
    # A proxy of the environment would be measured too.
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S, trust_env=False) as http, Caller(url) as caller:
        return await _Run(http, caller, url, wanted, on_call).all()


class _Run:
    def __init__(self, http: httpx.AsyncClient, caller: Caller, url: str, wanted: Wanted, on_call: OnCall) -> None:
        self._http, self._caller, self._url, self._wanted, self._on_call = http, caller, url, wanted, on_call
        self._local = urlsplit(url).hostname in LOOPBACK
        self._each = wanted.calls // ROUNDS
        self._rng = Random()
        self._questions: Sequence[str] = ()
        self._answered = self._total = 0
        self._alone: list[Mapping[str, float]] = []
        self._cpu_s: dict[int, float] = {}
        self._rates: dict[int, list[float]] = {}
        self._at_random: dict[float, list[Round]] = {}

    async def all(self) -> Profile:
        before = await self._services()
        way = self._way(before)
        self._questions = self._wanted.questions or await self._own_questions()
        self._cpu_s = dict.fromkeys(self._pids(before), 0.0)
        other_cores = await self._rounds(way)
        services = tuple(self._measured(one, before) for one in way)
        after = await self._services()
        source = Source(
            machine=machine() if self._local else f"another, {urlsplit(self._url).hostname}",
            version=before[SERVER]["replicas"][0]["version"],
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=self._wanted.kind,
            server=self._url,
            questions=f"{len(self._questions)}, {VARIED}",
            other_questions=_searches(after) - _searches(before) - self._answered,
            other_cores=other_cores if self._local else None,
        )
        at_once = {many: tuple(rates) for many, rates in self._rates.items()}
        cores = available_cores() if self._local else None
        at_random = {share: tuple(rounds) for share, rounds in self._at_random.items()}
        return Profile(services, cores, at_once, source, at_random)

    async def _rounds(self, way: Sequence[Measured]) -> float:
        """Ask all that is to be asked; how many cores other programs kept busy meanwhile."""
        outside = [one.service for one in way if one.lives is Lives.OUTSIDE]
        # What others compute is paid for, and takes its time: how this machine slows down is seen by searching.
        instead = outside == ["generation_service"]
        kind = "search" if instead else self._wanted.kind
        self._rates = {many: [] for many in (AT_ONCE if instead or not outside else ())}
        rated = (*([1] if instead else []), *self._rates)
        self._at_random = {share: [] for share in (() if outside else LOADS)}
        randomly = sum(LOADS[share] * self._each for share in self._at_random)
        self._total = WARM_UP + ROUNDS * (self._each + sum(_needed(self._each, many) for many in rated) + randomly)
        for _ in range(WARM_UP):
            await self._ask(self._wanted.kind)
        began, busy, own = time.perf_counter(), busy_s(), _own_s(self._cpu_s)
        for _ in range(ROUNDS):
            await self._alone_once()
            single = await self._rate(kind, 1, self._each) if instead else 0.0
            for many, rates in self._rates.items():
                rate = await self._rate(kind, many, self._each)
                # As many times as fast as one search alone, so many times as fast as one answer of this kind.
                rates.append(rate / single / self._computed_s(outside) if instead else rate)
            for share, rounds in self._at_random.items():
                rate = share * self._rates[AT_ONCE[-1]][-1]
                rounds.append(await self._randomly(kind, rate, LOADS[share] * self._each))
        return (busy_s() - busy - _own_s(self._cpu_s) + own) / (time.perf_counter() - began)

    async def _alone_once(self) -> None:
        """One round of questions that nobody gets in the way of."""
        started = _cpu_s(self._cpu_s)
        self._alone += [await self._ask(self._wanted.kind) for _ in range(self._each)]
        ended = _cpu_s(self._cpu_s)
        self._cpu_s = {pid: self._cpu_s[pid] + ended[pid] - started[pid] for pid in ended if pid in started}

    def _computed_s(self, outside: Sequence[str]) -> float:
        """What an answer takes on this machine, on average so far."""
        return sum(sum(took for name, took in one.items() if name not in outside) for one in self._alone) / len(
            self._alone
        )

    def _pids(self, services: Mapping[str, Json]) -> set[int]:
        """The processes of the server, as far as they are here."""
        if not self._local:
            return set()
        pids = {replica["pid"] for one in services.values() for replica in one["replicas"] if replica["pid"]}
        return {pid for pid in pids if psutil.pid_exists(pid)}

    async def _services(self) -> dict[str, Json]:
        return {one["name"]: one for one in (await _json(self._http, "GET", "/v1/services"))["data"]}

    def _way(self, services: Mapping[str, Json]) -> list[Measured]:
        """The services of an answer, still without times."""
        names = ["embeddings_service", "retrieval_service"]
        names += ["generation_service"] if self._wanted.kind == "ask" else []
        down = [name for name in (*names, SERVER) if services.get(name, {}).get("status") != "started"]
        if down:
            raise InvalidInput(f"{', '.join(down)} must be up at {self._url} to be measured; see `ragworks status`")
        server = services[SERVER]["replicas"][0]["pid"]
        found = []
        for name in (*names, SERVER):
            pids = [one["pid"] for one in services[name]["replicas"]]
            lives = Lives.OUTSIDE if None in pids else Lives.SERVER if server in pids else Lives.PROCESS
            slots = self._wanted.slots.get(name, 1) if lives is Lives.OUTSIDE else 1
            found.append(Measured(name, (), lives, len(pids), max(1, slots // len(pids))))
        return found

    async def _own_questions(self) -> list[str]:
        path = f"/v1/collections/{quote(self._wanted.collection, safe='')}/documents"
        listed = (await _json(self._http, "GET", path, params={"limit": TEXTS}))["data"]
        texts = [(await _json(self._http, "GET", f"{path}/{quote(one['id'], safe='')}/text"))["text"] for one in listed]
        found = taken(texts, self._wanted.calls, self._rng)
        if not found:
            raise InvalidInput(
                f"collection {self._wanted.collection!r} at {self._url} holds no words to ask about; ingest documents, "
                "or name a file with --questions"
            )
        return found

    async def _ask(self, kind: str) -> Mapping[str, float]:
        """Seconds by service."""
        body = {"query" if kind == "search" else "question": varied(self._rng.choice(self._questions), self._rng)}
        began = time.perf_counter()
        try:
            found = await self._caller.post(f"/v1/collections/{quote(self._wanted.collection, safe='')}/{kind}", body)
        except ServerProblem as error:
            if error.code != TooManyQuestions.code:
                raise
            raise InvalidInput(
                f"{AT_ONCE[-1]} questions at once are asked, and {self._url} answers fewer, or others ask as well; "
                f"start it with orchestration_api.max_questions at {2 * AT_ONCE[-1]} or more for the measurement"
            ) from error
        took = time.perf_counter() - began
        if found.get("degraded"):
            raise InvalidInput(f"the server answers only in part, {found['degraded']}; measure it when it is well")
        self._answered += 1
        self._on_call(min(self._answered, self._total), self._total)
        timings = found["timings"]
        seconds = {name: sum(timings.get(step, 0.0) for step in steps) for name, steps in STEPS.items()}
        return {**seconds, SERVER: took - timings["total"]}

    async def _rate(self, kind: str, many: int, calls: int) -> float:
        """Answers a second while ``many`` questions are always under way: neither the first nor the last count."""
        ended: list[float] = []
        numbers = count()

        async def asking() -> None:
            while next(numbers) < _needed(calls, many):
                await self._ask(kind)
                ended.append(time.perf_counter())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(many):
                tasks.create_task(asking())
        return calls / (ended[many - 1 + calls] - ended[many - 1])

    async def _randomly(self, kind: str, rate: float, calls: int) -> Round:
        """So many a second, each sent when chance has it, whatever is still open; timed from when it was due."""
        due_s = list(accumulate(self._rng.expovariate(rate) for _ in range(calls)))
        began = time.perf_counter()

        async def asking(due: float) -> tuple[float, float]:
            await self._ask(kind)
            return due, time.perf_counter() - began - due

        async with asyncio.TaskGroup() as tasks:
            asked = []
            for due in due_s:
                await asyncio.sleep(began + due - time.perf_counter())
                asked.append(tasks.create_task(asking(due)))
        return tuple(one.result() for one in asked)

    def _measured(self, one: Measured, services: Mapping[str, Json]) -> Measured:
        """With its times, and what its processes took; the server's are told of the API alone."""
        cpu = memory = None
        if one.lives is Lives.PROCESS or one.service == SERVER:
            pids = [replica["pid"] for replica in services[one.service]["replicas"] if replica["pid"] in self._cpu_s]
            if pids:
                cpu = sum(self._cpu_s[pid] for pid in pids) / len(self._alone)
                memory = _memory_bytes(pids)
        times = tuple(call[one.service] for call in self._alone)
        return Measured(one.service, times, one.lives, one.replicas, one.slots, cpu, memory)


def _needed(calls: int, many: int) -> int:
    """Answers until so many count: the first to end, and the last, are given while fewer are under way."""
    return calls + 2 * many - 1


async def _json(http: httpx.AsyncClient, method: str, path: str, **content: Any) -> Json:
    try:
        response = await http.request(method, path, **content)
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"the server at {http.base_url} cannot be reached ({type(error).__name__}: {error}); is it running?"
        ) from error
    return checked(str(http.base_url), response.status_code, response.content)


def _searches(services: Mapping[str, Json]) -> int:
    """Answers so far; each of them was searched for."""
    return int(services["retrieval_service"]["stats"].get("searches", 0))


def _cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds so far of those processes that are there."""
    found = {}
    for pid in pids:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            found[pid] = times.user + times.system
    return found


def _own_s(pids: Iterable[int]) -> float:
    """CPU seconds so far of what is measured and of who measures."""
    return sum(_cpu_s(pids).values()) + time.process_time()


def _memory_bytes(pids: Sequence[int]) -> int | None:
    """Of one of them, the largest."""
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found.append(int(psutil.Process(pid).memory_info().rss))
    return max(found, default=None)
