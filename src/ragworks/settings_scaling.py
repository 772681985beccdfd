"""Settings of a service that is scaled by its load, and the rule that they make with its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ragworks.errors import InvalidSettings
from ragworks.policies.scaling import POLICIES, ScaleSpec
from ragworks.policies.scaling_settings import check
from ragworks.policies.scaling_spec import ScaleDown, ScaleUp, TargetSettings, ThresholdSettings
from ragworks.settings_sources import setting

STARTUP_S = 2.0
"""Until a replica in a process is ready, model included: 0.6 s on a quiet machine, 3 s on a busy one."""

CALMS = 2
"""Stable durations that ``target`` and ``predictive`` wait before they take replicas away: they may take several."""

INTERVALS = 2
"""That a mean of the load is over, at least."""


@dataclass(frozen=True, slots=True)
class ScaleUpSettings:
    """Of policy threshold: one more replica as soon as any is exceeded."""

    cpu_threshold: float = setting(ScaleUp().cpu_threshold, "per cent of the CPU it may use", low=0)
    memory_threshold: float = setting(ScaleUp().memory_threshold, "per cent of the memory it may use", low=0)
    response_time_threshold: float = setting(ScaleUp().response_time_threshold, "mean seconds of a call", low=0)
    queue_size_threshold: float = setting(ScaleUp().queue_size_threshold, "calls that wait", low=0)
    error_rate_threshold: float = setting(ScaleUp().error_rate_threshold, "per cent of calls that fail", low=0)


@dataclass(frozen=True, slots=True)
class ScaleDownSettings:
    """Of policy threshold: one less once all were kept below for the stable duration."""

    cpu_threshold: float = setting(ScaleDown().cpu_threshold, "per cent of the CPU it may use", low=0)
    memory_threshold: float = setting(ScaleDown().memory_threshold, "per cent of the memory it may use", low=0)
    response_time_threshold: float = setting(ScaleDown().response_time_threshold, "mean seconds of a call", low=0)
    queue_size_threshold: float = setting(ScaleDown().queue_size_threshold, "calls that wait", low=0)


@dataclass(frozen=True, slots=True)
class ScalingThresholds:
    scale_up: ScaleUpSettings = field(default_factory=ScaleUpSettings)
    scale_down: ScaleDownSettings = field(default_factory=ScaleDownSettings)


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    enabled: bool = setting(True, "scale by load, where replicas are processes, between the bounds of replicas")
    policy: str = setting(ScaleSpec().policy, "the rule: target, predictive or threshold", of=tuple(POLICIES))
    cooldown: float = setting(
        ScaleSpec().cooldown, "seconds after an action without another (threshold) or without a step down", low=0
    )
    monitoring_interval: float = setting(ScaleSpec().monitoring_interval, "seconds between decisions", low=1)
    stable_duration: float = setting(
        ThresholdSettings().stable_duration,
        "seconds of low load before threshold takes a replica away; target and predictive wait twice as long",
        low=1,
    )
    max_fed: int = setting(
        0, "most replicas that the cores can feed; 0 works it out from cores and threads", low=0, high=256
    )
    thresholds: ScalingThresholds = field(default_factory=ScalingThresholds)


@dataclass(frozen=True, slots=True)
class WorkerScalingSettings(ScalingSettings):
    enabled: bool = setting(False, "scale worker processes by load; unused ones are not even started")


def spec(settings: ScalingSettings, bounds: tuple[int, int], max_fed: int | None = None) -> ScaleSpec:
    """What a scaler is given; ``max_fed`` is what was worked out, which a setting overrides."""
    up, down = settings.thresholds.scale_up, settings.thresholds.scale_down
    return ScaleSpec(
        policy=settings.policy,
        min_instances=bounds[0],
        max_instances=bounds[1],
        max_fed=settings.max_fed or max_fed,
        cooldown=settings.cooldown,
        monitoring_interval=settings.monitoring_interval,
        startup_s=STARTUP_S,
        threshold=ThresholdSettings(
            ScaleUp(**{one.name: getattr(up, one.name) for one in fields(ScaleUp)}),
            ScaleDown(**{one.name: getattr(down, one.name) for one in fields(ScaleDown)}),
            settings.stable_duration,
        ),
        target=TargetSettings(window_s=_window_s(settings), calm_s=CALMS * settings.stable_duration),
    )


def _window_s(settings: ScalingSettings) -> float:
    """A mean over longer than the load must be low for would keep what it has for longer than that."""
    longest = min(TargetSettings().window_s, settings.stable_duration)
    return max(longest, INTERVALS * settings.monitoring_interval)


def check_scaling(service: str, settings: ScalingSettings, bounds: tuple[int, int]) -> None:
    """Raises InvalidSettings that names the key where single values contradict each other."""
    try:
        check(spec(settings, bounds))
    except InvalidSettings as error:
        raise InvalidSettings(f"{service}.scaling.{str(error).replace('threshold.', 'thresholds.')}") from None
