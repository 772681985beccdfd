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
