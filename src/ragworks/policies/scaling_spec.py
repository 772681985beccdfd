"""What a scaler is told and what it answers: settings, the measured load, what it remembers, its decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ragworks.policies.forecasting import Forecast, ForecastSettings
from ragworks.policies.windows import Window


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """One more as soon as ANY is exceeded: per cent of CPU and memory, seconds, calls, per cent of errors."""

    cpu_threshold: float = 70.0
    memory_threshold: float = 80.0
    response_time_threshold: float = 2.0
    queue_size_threshold: float = 100.0
    error_rate_threshold: float = 5.0


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """One less once ALL have been kept below for the stable duration."""

    cpu_threshold: float = 30.0
    memory_threshold: float = 40.0
    response_time_threshold: float = 0.5
    queue_size_threshold: float = 10.0


@dataclass(frozen=True, slots=True)
class ThresholdSettings:
    scale_up: ScaleUp = field(default_factory=ScaleUp)
    scale_down: ScaleDown = field(default_factory=ScaleDown)
    stable_duration: float = 300.0


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """Slots for the load at ``utilisation``, and never fewer than the load and ``headroom`` times its square root, or
    less of that for calls that are shorter than ``patience_s``, a wait that nobody minds.

    The load is averaged over ``window_s``. Who waits should be served within ``drain_s``, which may take more slots
    than the load alone. Fewer replicas once ``calm_s`` needed no more. A load beyond ``panic`` times all slots within
    one interval is answered at once. One decision multiplies by ``growth`` at most, or adds four.
    """

    utilisation: float = 0.9
    headroom: float = 2.25
    patience_s: float = 1.0
    window_s: float = 60.0
    drain_s: float = 5.0
    calm_s: float = 600.0
    panic: float = 1.0
    growth: float = 3.0


@dataclass(frozen=True, slots=True)
class ScaleSpec:
    """How one service is scaled. Seconds.

    ``max_fed`` is how many of its replicas the machine's cores can feed; None where its work is not bound by them, or
    where more are wanted all the same. ``startup_s`` is how long a replica takes to be ready, which is how far ahead
    ``predictive`` looks. ``cooldown``: ``threshold`` does nothing for so long after an action; the others do not scale
    down.
    """

    policy: str = "target"
    min_instances: int = 1
    max_instances: int = 10
    max_fed: int | None = None
    cooldown: float = 300.0
    monitoring_interval: float = 30.0
    startup_s: float = 30.0
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    target: TargetSettings = field(default_factory=TargetSettings)
    predictive: ForecastSettings = field(default_factory=ForecastSettings)

    @property
    def most(self) -> int:
        """The highest number of replicas."""
        fed = self.max_instances if self.max_fed is None else self.max_fed
        return max(self.min_instances, min(self.max_instances, fed))


@dataclass(frozen=True, slots=True)
class Load:
    """One service over the interval that ends now. None is not measured, which is not zero.

    ``instances`` are asked for, those that still start included and those that drain not; ``ready`` of them serve,
    each ``slots`` calls at once. ``concurrency`` is the mean of calls in flight and waiting, wherever they wait;
    ``queue_size`` what waits now, ``arrived`` what came. Of the calls that ``completed``: mean seconds of work
    ``service_s`` and of response, per cent of errors; these are None too when none completed. Usage in per cent of what
    a replica may use, averaged.
    """

    instances: int
    ready: int
    slots: int = 1
    concurrency: float | None = None
    queue_size: int | None = None
    arrived: int | None = None
    completed: int | None = None
    service_s: float | None = None
    response_s: float | None = None
    error_percent: float | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ScaleState:
    """What a scaler remembers; begins empty.

    ``seen_at`` is the last time that anything was measured, ``since`` the begin of observation without a hole.
    ``service_s`` was learnt over ``learnt_s``.
    """

    seen_at: float | None = None
    since: float | None = None
    acted_at: float | None = None
    calm_since: float | None = None
    service_s: float | None = None
    learnt_s: float = 0.0
    load: Window = ()
    needed: Window = ()
    forecast: Forecast = field(default_factory=Forecast)


class Action(StrEnum):
    NONE = "none"
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """With NONE nothing is to be done, whatever ``target_instances`` says; it is what would be right."""

    action: Action
    target_instances: int
    reason: str
    seen: Load | None
    state: ScaleState


@dataclass(frozen=True, slots=True)
class Wish:
    """What one policy wants, before bounds."""

    instances: int
    reason: str
    state: ScaleState
