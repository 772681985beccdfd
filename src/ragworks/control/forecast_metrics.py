"""The metrics of load forecasts, read from the scalers at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragworks.policies.forecasting import Foreseen

Forecasts = Callable[[], Mapping[str, Foreseen]]


class ForecastMetrics(Collector):
    """A service that nobody scales, or of which nothing is known yet, has no sample."""

    def __init__(self) -> None:
        self.forecasts: Forecasts = dict

    def collect(self) -> Iterable[Metric]:
        load = GaugeMetricFamily(
            "rag_forecast_calls", "Calls at once that are expected shortly", labels=["service", "bound"]
        )
        ahead = GaugeMetricFamily("rag_forecast_ahead_seconds", "How far ahead that is", labels=["service"])
        covered = GaugeMetricFamily(
            "rag_forecast_covered_ratio", "Share of loads that lay from low to high, lately", labels=["service"]
        )
        error = GaugeMetricFamily(
            "rag_forecast_error_calls", "How far off forecast and last value were on average", labels=["service", "of"]
        )
        for service, seen in self.forecasts().items():
            for bound in ("low", "expected", "high"):
                load.add_metric([service, bound], getattr(seen, bound))
            ahead.add_metric([service], seen.in_s)
            if seen.covered is not None:
                covered.add_metric([service], seen.covered)
            for of, value in (("forecast", seen.error), ("last_value", seen.naive_error)):
                if value is not None:
                    error.add_metric([service, of], value)
        return load, ahead, covered, error
