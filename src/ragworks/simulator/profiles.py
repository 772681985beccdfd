"""What ``ragworks bench profile`` measured of a server, as a value and as a file: what the planner plans from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from ragworks.errors import InvalidInput

T = TypeVar("T")

FORMAT = "ragworks profile 2"
Round = tuple[tuple[float, float], ...]
"""(when, took) of questions that came at random times: seconds since the round began, and until the answer."""

SERVER = "orchestration_api"
"""The service whose CPU and memory are those of the whole server process, since it is that process."""


class Lives(StrEnum):
    """Where a service works: in the server's process, in processes beside it, or on machines of somebody else."""

    SERVER = "server"
    PROCESS = "process"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Measured:
    """One service of the way: seconds of single calls, in their order, which is the same for all services.

    ``replicas`` is how many there were, each with ``slots`` calls at once. ``cpu_s`` is of a call, and ``memory_bytes``
    of a replica; None where that could not be seen from outside.
    """

    service: str
    service_s: tuple[float, ...]
    lives: Lives
    replicas: int = 1
    slots: int = 1
    cpu_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where, when and from what it was measured.

    ``other_questions`` are those that somebody else asked meanwhile, ``other_cores`` were kept busy by other programs;
    None where that could not be seen.
    """

    machine: str = "unknown"
    version: str = "unknown"
    measured_at: str = "unknown"
    kind: str = "unknown"
    server: str = "unknown"
    questions: str = "unknown"
    other_questions: int = 0
    other_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The services in the order of the way. ``at_once`` are answers a second, once a round, by how many were asked at
    once; of those the parts that are ``Lives.OUTSIDE`` were left out. ``at_random`` are rounds of questions that came
    whenever chance had it, by their share of the rate with the most at once; none where a service is outside.
    ``cores`` is None where they cannot be seen."""

    services: tuple[Measured, ...]
    cores: int | None
    at_once: Mapping[int, tuple[float, ...]]
    source: Source
    at_random: Mapping[float, tuple[Round, ...]] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return len(self.services[0].service_s)


def written(profile: Profile) -> dict[str, Any]:
    """As JSON."""
    services = {
        one.service: {key: value for key, value in asdict(one).items() if key != "service"} for one in profile.services
    }
    at_once = {str(many): list(rates) for many, rates in profile.at_once.items()}
    return {
        "format": FORMAT,
        **asdict(profile.source),
        "cores": profile.cores,
        "at_once": at_once,
        "at_random": {str(share): rounds for share, rounds in profile.at_random.items()},
        "services": services,
    }


def read(path: Path) -> Profile:
    """The profile in a file. Raises InvalidInput that says what was expected."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read as a profile ({error}); make one with `ragworks bench profile`"
        ) from error
    kind = found.get("format") if isinstance(found, dict) else None
    if kind != FORMAT:
        raise InvalidInput(
            f"{path} must be of format {FORMAT!r}, found {kind!r}; make it anew with `ragworks bench profile`"
        )
    try:
        profile = _profile(found)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{path} is damaged ({error!r}); make it anew with `ragworks bench profile`") from error
    if fault := _fault(profile):
        raise InvalidInput(f"{path}: {fault}; make it anew with `ragworks bench profile`")
    return profile


def _profile(found: Mapping[str, Any]) -> Profile:
    services = tuple(
        Measured(
            name,
            tuple(map(float, one["service_s"])),
            Lives(one["lives"]),
            int(one["replicas"]),
            int(one["slots"]),
            _known(float, one["cpu_s"]),
            _known(int, one["memory_bytes"]),
        )
        for name, one in found["services"].items()
    )
    at_once = {int(many): tuple(map(float, rates)) for many, rates in found["at_once"].items()}
    known = {name: str(found[name]) for name, default in asdict(Source()).items() if isinstance(default, str)}
    source = Source(
        **known, other_questions=int(found["other_questions"]), other_cores=_known(float, found["other_cores"])
    )
    at_random = {
        float(share): tuple(tuple((float(at), float(took)) for at, took in each) for each in rounds)
        for share, rounds in found["at_random"].items()
    }
    return Profile(services, _known(int, found["cores"]), at_once, source, at_random)


def _known(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)


def _fault(profile: Profile) -> str | None:
    if all(one.service != SERVER or one.lives is not Lives.SERVER for one in profile.services):
        return f"expected {SERVER} among the services"
    for one in profile.services:
        if not one.service_s or len(one.service_s) != profile.calls or not all(map(_positive, one.service_s)):
            return f"{one.service} wants as many times above 0 s as the other services"
        if one.replicas < 1 or one.slots < 1:
            return f"{one.service} wants 1 replica and 1 slot or more"
        if one.cpu_s is not None and not (isfinite(one.cpu_s) and one.cpu_s >= 0):
            return f"cpu_s of {one.service} must not be negative, found {one.cpu_s}"
    if profile.cores is not None and profile.cores < 1:
        return f"cores must be 1 or more, found {profile.cores}"
    if not all(many > 1 and rates and all(map(_positive, rates)) for many, rates in profile.at_once.items()):
        return "at_once wants rates above 0 for 2 and more questions at once"
    if len(profile.at_random) == 1 or not all(
        rounds and all(map(_possible, rounds)) for rounds in profile.at_random.values()
    ):
        return "at_random wants two loads or none, each with rounds of times that do not go back, and seconds above 0"
    return None


def _possible(each: Round) -> bool:
    times = [at for at, _ in each]
    in_order = all(isfinite(at) and at >= 0 for at in times) and times == sorted(times)
    return bool(each) and in_order and all(_positive(took) for _, took in each)


def _positive(value: float) -> bool:
    return isfinite(value) and value > 0
