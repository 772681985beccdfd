"""How a replica is doing, from its probes and its calls; and when what the machine has left is worth a warning.

A replica changes only after several rounds that agree: ``down_after`` in a row that are all worse make it as bad as the
mildest of them, ``up_after`` in a row that are all better make it as good as the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from ragworks.types import Health

BADNESS = {Health.HEALTHY: 0, Health.DEGRADED: 1, Health.UNHEALTHY: 2}
FEWEST_PEERS = 2  # of one peer nobody can say which of the two is slow


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Rounds in a row that change a replica, and what makes a round a bad one.

    A probe slower than ``slow_probe_s``, a share of failed calls above ``error_share``, answers ``latency_factor``
    times slower than those of its peers (both of at least ``min_calls`` in the window), or more than ``memory_percent``
    of the memory it may use degrade. It is given up after ``missed_probes`` without an answer, or ``unhealthy_s``.
    """

    down_after: int = 2
    up_after: int = 3
    slow_probe_s: float = 1.0
    error_share: float = 0.2
    latency_factor: float = 5.0
    min_calls: int = 10
    memory_percent: float = 90.0
    missed_probes: int = 3
    unhealthy_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round found out of a replica; None where it found nothing, which is not zero.

    ``answered`` says whether the probe was, ``said`` and ``detail`` what of, ``probe_s`` how fast, ``meanwhile`` how
    many calls were answered while it waited. ``calls`` ended in the window, ``failed`` of them by its fault;
    ``response_s`` is the mean of the others.
    """

    answered: bool | None = None
    said: Health | None = None
    detail: str = ""
    probe_s: float | None = None
    meanwhile: int = 0
    calls: int = 0
    failed: int = 0
    response_s: float | None = None
    peers_response_s: tuple[float, ...] = ()
    memory_percent: float | None = None


@dataclass(frozen=True, slots=True)
class HealthState:
    """``rounds`` are the last that found something, oldest first; ``since`` is when ``health`` began, ``told_at`` when
    the replica was last given up."""

    health: Health = Health.HEALTHY
    rounds: tuple[Health, ...] = ()
    missed: int = 0
    since: float = 0.0
    told_at: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """``give_up`` once when the replica should be replaced, and again each ``unhealthy_s`` while it is not."""

    state: HealthState
    health: Health
    give_up: bool
    reason: str


def judge(settings: HealthSettings, state: HealthState, seen: Seen, now: float) -> Judgement:
    """How a replica is after one more round.

    Nothing known yet: healthy, since a replica that is not has not started. A round that found nothing changes nothing.
    Everything dead, or only one: judged as any other, what to do then is for who picks.
    """
    found, reason = _round(settings, seen)
    if found is None:
        return Judgement(state, state.health, False, "nothing was found out")
    rounds = (*state.rounds, found)[-max(settings.down_after, settings.up_after) :]
    health = _after(settings, state.health, rounds)
    missed = state.missed + 1 if seen.answered is False else 0
    since = state.since if health is state.health else now
    told_at = state.told_at if health is Health.UNHEALTHY else None
    after = HealthState(health, rounds, missed, since, told_at)
    hopeless = missed >= settings.missed_probes or now - since >= settings.unhealthy_s
    if health is Health.UNHEALTHY and hopeless and (told_at is None or now - told_at >= settings.unhealthy_s):
        return Judgement(replace(after, told_at=now), health, True, reason)
    return Judgement(after, health, False, reason)


def _after(settings: HealthSettings, health: Health, rounds: Sequence[Health]) -> Health:
    # Both windows end with the last round, so the mildest of one is never worse than the worst of the other.
    if len(rounds) >= settings.down_after:
        health = max(health, min(rounds[-settings.down_after :], key=BADNESS.__getitem__), key=BADNESS.__getitem__)
    if len(rounds) >= settings.up_after:
        health = min(health, max(rounds[-settings.up_after :], key=BADNESS.__getitem__), key=BADNESS.__getitem__)
    return health


def _round(settings: HealthSettings, seen: Seen) -> tuple[Health | None, str]:
    """How one round by itself looks, and why."""
    bad = list(_complaints(settings, seen))
    if bad:
        worst = max((health for health, _ in bad), key=BADNESS.__getitem__)
        return worst, "; ".join(why for health, why in bad if health is worst)
    if seen.answered is None and not seen.calls:
        return None, ""
    return Health.HEALTHY, "the probe was answered" if seen.answered else "calls are answered"


def _complaints(settings: HealthSettings, seen: Seen) -> Iterable[tuple[Health, str]]:
    if seen.answered is False:
        # Who answers calls is not dead, however late its probe is: it has more to do than it can.
        health = Health.DEGRADED if seen.meanwhile else Health.UNHEALTHY
        yield health, f"the probe got no answer: {seen.detail}"
    if seen.said is not None and seen.said is not Health.HEALTHY:
        yield seen.said, f"it says that it is {seen.said}: {seen.detail}"
    if seen.probe_s is not None and seen.probe_s > settings.slow_probe_s:
        yield Health.DEGRADED, f"the probe took {seen.probe_s:.2g} s, more than {settings.slow_probe_s:g} s"
    if seen.calls >= settings.min_calls:
        if seen.failed > settings.error_share * seen.calls:
            yield Health.DEGRADED, f"{seen.failed} of {seen.calls} calls failed"
        if seen.response_s is not None and len(seen.peers_response_s) >= FEWEST_PEERS:
            usual = median(seen.peers_response_s)
            if seen.response_s > settings.latency_factor * usual:
                yield Health.DEGRADED, f"{seen.response_s:.2g} s an answer where its peers take {usual:.2g} s"
    if seen.memory_percent is not None and seen.memory_percent > settings.memory_percent:
        health = Health.UNHEALTHY if seen.memory_percent > 100 else Health.DEGRADED
        yield health, f"it uses {seen.memory_percent:.0f} % of the memory it may use"


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """When the machine has too little left. A person notices 0.1 s of lag; a probe with the usual timeout of 1 s fails
    from there on. A disk is nearly full below ``low_disk_bytes``, or ``low_disk_share`` of a small one."""

    degraded_lag_s: float = 0.1
    unhealthy_lag_s: float = 1.0
    low_disk_bytes: int = 2 * 1024**3
    low_disk_share: float = 0.1
    low_memory_share: float = 0.05
    stuck_s: float = 600.0


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """What the machine has left, None where it is not known; ``own_memory_bytes`` is of the server and its children."""

    loop_lag_s: float | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_total_bytes: int | None = None
    own_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that is not well, and what to do."""

    health: Health
    reason: str


def machine_signals(settings: MachineSettings, seen: MachineSeen) -> tuple[Signal, ...]:
    """All that is not well; nothing known, nothing said."""
    return tuple(
        signal
        for signal in (_lag(settings, seen), _disk(settings, seen), _memory(settings, seen))
        if signal is not None
    )


def queue_signal(settings: MachineSettings, waiting: int, oldest_s: float, quiet_s: float) -> Signal | None:
    """Whether a queue stands still: one waits for long, and none ended for as long. A long queue is no ailment."""
    if waiting and min(oldest_s, quiet_s) >= settings.stuck_s:
        reason = (
            f"{waiting} documents wait or run, the oldest for {oldest_s:.0f} s, and none ended in {quiet_s:.0f} s; see "
            "`ragworks jobs` and the log"
        )
        return Signal(Health.DEGRADED, reason)
    return None


def worst(signals: Sequence[Signal]) -> Signal:
    """All of them as one: as bad as the worst, with every reason."""
    health = max((signal.health for signal in signals), key=BADNESS.__getitem__, default=Health.HEALTHY)
    return Signal(health, "; ".join(signal.reason for signal in signals))


def _lag(settings: MachineSettings, seen: MachineSeen) -> Signal | None:
    lag_s = seen.loop_lag_s
    if lag_s is None or lag_s < settings.degraded_lag_s:
        return None
    health = Health.UNHEALTHY if lag_s >= settings.unhealthy_lag_s else Health.DEGRADED
    return Signal(
        health, f"the event loop was {lag_s:.2g} s late, so that every request waited; give it more of a core"
    )


def _disk(settings: MachineSettings, seen: MachineSeen) -> Signal | None:
    free, total = seen.disk_free_bytes, seen.disk_total_bytes
    if free is None or total is None or free >= min(settings.low_disk_bytes, settings.low_disk_share * total):
        return None
    reason = (
        f"{free / 1024**2:.0f} MiB of {total / 1024**2:.0f} MiB are left on the disk of the data folder; free space, "
        "or documents will be refused"
    )
    return Signal(Health.DEGRADED, reason)


def _memory(settings: MachineSettings, seen: MachineSeen) -> Signal | None:
    free, total = seen.memory_available_bytes, seen.memory_total_bytes
    if free is None or total is None or free >= settings.low_memory_share * total:
        return None
    own = "" if seen.own_memory_bytes is None else f"; this server takes {seen.own_memory_bytes / 1024**2:.0f} MiB"
    reason = (
        f"{free / 1024**2:.0f} MiB of {total / 1024**2:.0f} MiB of memory are available{own}; run fewer replicas "
        "and workers, or end what else runs here"
    )
    return Signal(Health.DEGRADED, reason)
