"""Makes grafana/ragworks.json of the rows below: run ``python deploy/monitoring/dashboard.py`` after a change here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("grafana") / "ragworks.json"
COLUMNS, HEIGHT = 24, 8
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}

# In an expression, @ stands for the server that is looked at, [~] for a window that suits the width of the picture.
SERVER, WINDOW = 'instance=~"$instance"', "$__rate_interval"
ASK = "/v1/collections/{name}/ask|/v1/chat/completions"
QUESTIONS = f'route=~"/v1/collections/{{name}}/search|{ASK}", method="POST"'
SEARCH = 'route="/v1/collections/{name}/search"'


@dataclass(frozen=True, slots=True)
class Panel:
    """``queries``: expression by legend. ``at``: values at which its colour becomes orange, then red; the other way
    round where they fall. ``latest`` shows numbers instead of curves; ``stacked`` adds curves up."""

    title: str
    unit: str
    queries: Mapping[str, str]
    about: str = ""
    at: Sequence[float] = ()
    latest: bool = False
    stacked: bool = False


def total(metric: str, by: str = "", where: str = "@") -> str:
    """A counter's increase a second."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{where}}}[~]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "@") -> str:
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[~])))"


def quantiles(histogram: str, where: str = "@") -> dict[str, str]:
    return {f"p{100 * q:.0f}": quantile(q, histogram, where=where) for q in (0.5, 0.95, 0.99)}


def mean(histogram: str, by: str = "") -> str:
    return f"{total(f'{histogram}_sum', by)} / ({total(f'{histogram}_count', by)} > 0)"


ROWS: Mapping[str, Sequence[Panel]] = {
    "What users feel": (
        Panel(
            "Error budget left of 30 days",
            "percentunit",
            {"{{slo}}": "min by (slo) (ragworks:slo_budget_left:ratio30d{@})"},
            "Of what rules/slo.yml promises. Below zero a promise is broken.",
            at=(0.25, 0),
            latest=True,
        ),
        Panel(
            "Budget burn of the last hour",
            "none",
            {"{{slo}}": "max by (slo) (ragworks:slo_burn:rate1h{@})"},
            "1 uses the budget up in 30 days; 14.4 pages.",
            at=(1, 14.4),
        ),
        Panel(
            "Searches and asks",
            "reqps",
            {"{{route}}": total("rag_requests_total", "route", f"@, {QUESTIONS}")},
            stacked=True,
        ),
        Panel(
            "Searches and asks that failed",
            "reqps",
            {
                "{{status}} {{route}}": total("rag_requests_total", "status, route", f'@, {QUESTIONS}, status=~"5.."'),
                "answers": total("rag_answers_total", where='@, outcome="failed"'),
            },
            "`answers` has those too that broke off while they streamed, after their 200.",
        ),
        Panel("Search: latency", "s", quantiles("rag_request_duration_seconds", f"@, {SEARCH}"), at=(0.25, 0.5)),
        Panel(
            "Ask: latency",
            "s",
            quantiles("rag_request_duration_seconds", f'@, route=~"{ASK}"'),
        ),
        Panel(
            "Questions by how they ended",
            "reqps",
            {"{{kind}} {{outcome}}": total("rag_questions_total", "kind, outcome")},
        ),
        Panel("Ratings", "short", {"{{rating}}": "sum by (rating) (increase(rag_feedback_total{@}[~]))"}),
    ),
    "Search, step by step": (
        Panel("p95 of each step", "s", {"{{step}}": quantile(0.95, "rag_search_step_duration_seconds", "step")}),
        Panel("Mean of each step", "s", {"{{step}}": mean("rag_search_step_duration_seconds", "step")}),
        Panel("Question embedding: p95", "s", {"{{kind}}": quantile(0.95, "rag_embedding_duration_seconds", "kind")}),
    ),
    "Ingestion": (
        Panel("Queue", "short", {"documents": "sum (rag_queue_size{@})"}, "Documents that wait or run."),
        Panel("Age of the oldest that waits", "s", {"age": "max (rag_queue_oldest_seconds{@})"}, at=(300, 900)),
        Panel("Bytes in the queue", "bytes", {"bytes": "sum (rag_queue_bytes{@})"}),
        Panel(
            "Documents by how they ended", "ops", {"{{outcome}}": total("rag_documents_total", "outcome")}, stacked=True
        ),
        Panel(
            "Stages: seconds of work a second",
            "none",
            {"{{stage}}": total("rag_stage_duration_seconds_sum", "stage")},
            "How many documents are in each stage on average: where the time goes.",
            stacked=True,
        ),
        Panel("Stages: p95", "s", {"{{stage}}": quantile(0.95, "rag_stage_duration_seconds", "stage")}),
        Panel("Dead letters", "short", {"documents": "sum (rag_dead_letters{@})"}, "`ragworks jobs dead` lists them."),
        Panel("Errors by code", "ops", {"{{code}}": f"{total('rag_errors_total', 'code')} > 0"}),
        Panel("Webhooks", "ops", {"{{outcome}}": total("rag_webhooks_total", "outcome")}),
    ),
    "Embedding": (
        Panel(
            "Where vectors come from",
            "ops",
            {"{{tier}}": total("rag_cache_hits_total", "tier"), "model": total("rag_cache_misses_total")},
            stacked=True,
        ),
        Panel(
            "Found in the cache",
            "percentunit",
            {
                "share": "sum (rate(rag_cache_hits_total{@}[~])) / (sum (rate(rag_cache_hits_total{@}[~])) "
                "+ sum (rate(rag_cache_misses_total{@}[~])) > 0)"
            },
        ),
        Panel(
            "Cache",
            "short",
            {"entries": "sum (rag_cache_entries{@})", "evicted a second": total("rag_cache_evictions_total")},
        ),
        Panel("Batches", "ops", {"batches": total("rag_embedding_batches_total")}),
        Panel("Batch: duration", "s", quantiles("rag_embedding_batch_duration_seconds")),
        Panel(
            "Batch: tokens",
            "short",
            {**quantiles("rag_embedding_batch_tokens"), "mean": mean("rag_embedding_batch_tokens")},
        ),
    ),
    "Replicas and scaling": (
        Panel(
            "Replicas by state",
            "short",
            {"{{service}} {{state}}": "sum by (service, state) (rag_replicas{@}) > 0"},
            stacked=True,
        ),
        Panel(
            "Replicas wanted and there",
            "short",
            {
                "{{service}} wanted": "sum by (service) (rag_scale_target_replicas{@})",
                "{{service}} there": 'sum by (service) (rag_replicas{@, state=~"healthy|degraded"}) > 0',
            },
        ),
        Panel(
            "Calls in flight and waiting",
            "short",
            {
                "{{replica}}": "sum by (replica) (rag_replica_active_calls{@})",
                "{{service}} waiting": "sum by (service) (rag_service_queue_calls{@}) > 0",
            },
            "Those that wait are for a replica, or at one whose slots are taken.",
        ),
        Panel(
            "Age of the oldest call that waits",
            "s",
            {"{{service}}": "max by (service) (rag_service_queue_age_seconds{@})"},
            "While documents are embedded their passages wait by right; questions go before them.",
        ),
        Panel(
            "What a call takes, as learnt",
            "s",
            {"{{service}}": "max by (service) (rag_service_call_seconds{@})"},
            "Of usual size, at a replica of usual pace, without waiting: what answers take beyond it is the queue.",
        ),
        Panel(
            "Calls of replicas, 95 %",
            "s",
            {"{{service}}": quantile(0.95, "rag_replica_call_duration_seconds", "service")},
        ),
        Panel("Response time by replica", "s", {"{{replica}}": "max by (replica) (rag_replica_response_seconds{@})"}),
        Panel("Errors by replica", "percentunit", {"{{replica}}": "max by (replica) (rag_replica_error_ratio{@})"}),
        Panel(
            "CPU by replica",
            "percentunit",
            {"{{replica}}": "max by (replica) (rag_replica_cpu_ratio{@})"},
            "1 is one core.",
        ),
        Panel("Memory by replica", "bytes", {"{{replica}}": "max by (replica) (rag_replica_memory_bytes{@})"}),
        Panel(
            "Decisions",
            "short",
            {"{{service}} {{action}}": "sum by (service, action) (increase(rag_events_total{@}[~])) > 0"},
            "`ragworks why` has the reason of each.",
        ),
        Panel(
            "Retried, hedged, left out, panicked, refused",
            "ops",
            {
                "{{service}} retried": f"{total('rag_replica_retries_total', 'service')} > 0",
                "{{service}} hedged": f"{total('rag_replica_hedges_total', 'service')} > 0",
                "{{service}} left out": f"{total('rag_replica_ejections_total', 'service')} > 0",
                "{{service}} panicked": f"{total('rag_replica_panics_total', 'service')} > 0",
                "{{service}} refused": f"{total('rag_replica_rejections_total', 'service')} > 0",
            },
        ),
    ),
    "Machine": (
        Panel("Services that are up", "short", {"{{service}}": "min by (service) (rag_service_up{@})"}),
        Panel(
            "CPU of the server's processes",
            "short",
            {"{{kind}}": total("rag_process_cpu_seconds_total", "kind"), "cores": "sum (rag_cores{@})"},
        ),
        Panel(
            "Memory of the server's processes",
            "bytes",
            {"{{kind}}": "sum by (kind) (rag_process_resident_memory_bytes{@})"},
            stacked=True,
        ),
        Panel("Processes", "short", {"{{kind}}": "sum by (kind) (rag_processes{@})"}),
        Panel("Disk left", "bytes", {"{{instance}}": "min by (instance) (rag_disk_free_bytes{@})"}),
        Panel("Lateness of the event loop", "s", quantiles("rag_loop_lag_seconds"), at=(0.1, 0.25)),
        Panel("HTTP requests in flight", "short", {"requests": "sum (rag_active_connections{@})"}),
        Panel("Requests by route", "reqps", {"{{route}}": f"{total('rag_requests_total', 'route')} > 0"}),
        Panel("What runs", "short", {"{{instance}}: {{version}}, Python {{python}}": "rag_build_info{@}"}, latest=True),
    ),
    "Generation": (
        Panel("First word", "s", quantiles("rag_generation_first_token_seconds")),
        Panel("Whole answer", "s", quantiles("rag_generation_duration_seconds")),
        Panel("Answers by how they ended", "reqps", {"{{outcome}}": total("rag_answers_total", "outcome")}),
        Panel("Citations", "ops", {"{{outcome}}": total("rag_citations_total", "outcome")}),
        Panel("Tokens", "ops", {"{{service}} {{kind}}": total("rag_tokens_total", "service, kind")}),
        Panel(
            "Cost of an hour",
            "none",
            {"{{service}}": "sum by (service) (increase(rag_cost_total{@}[1h]))"},
            "In the currency of the prices in the settings; nothing where none are given.",
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})  # fmt: skip
        y += 1
        columns = 4 if len(row) % 3 else 3
        for place, panel in enumerate(row):
            at = {"h": HEIGHT, "w": COLUMNS // columns, "x": place % columns * (COLUMNS // columns)}
            panels.append(_panel(len(panels) + 1, panel, at | {"y": y + place // columns * HEIGHT}))
        y += -(-len(row) // columns) * HEIGHT
    return {
        "uid": "ragworks",
        "title": "ragworks",
        "tags": ["ragworks"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels: what broke at that moment
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [],
        "templating": {"list": [_datasource(), _instance()]},
        "annotations": {"list": [_decisions()]},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    falling = len(panel.at) > 1 and panel.at[0] > panel.at[-1]
    colours = ("red", "orange", "green") if falling else ("green", "orange", "red")
    steps = [
        {"color": colour, "value": value} for colour, value in zip(colours, (None, *sorted(panel.at)), strict=False)
    ]
    custom = {} if panel.latest else {
        "lineWidth": 1, "fillOpacity": 15 if panel.stacked else 0, "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.at else "off"},
    }  # fmt: skip
    options = (
        {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "textMode": "value_and_name"}
        if panel.latest
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    )
    return {
        "id": number,
        "type": "stat" if panel.latest else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": PROMETHEUS,
        "gridPos": at,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps},
                **({} if falling else {"min": 0}),
            },
            "overrides": [],
        },
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": PROMETHEUS, "expr": written(expr), "legendFormat": legend}
            for place, (legend, expr) in enumerate(panel.queries.items())
        ],
    }  # fmt: skip


def written(expr: str) -> str:
    return expr.replace("@", SERVER).replace("[~]", f"[{WINDOW}]")


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _instance() -> dict[str, Any]:
    query = 'label_values(up{job="ragworks"}, instance)'
    return {
        "name": "instance", "label": "Server", "type": "query", "datasource": PROMETHEUS, "definition": query,
        "query": {"query": query, "refId": "instance"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _decisions() -> dict[str, Any]:
    actions = 'action=~"scale_up|scale_down|scaled|ejected|replica_ended|replica_killed|service_failed"'
    return {
        "name": "Decisions", "datasource": PROMETHEUS, "enable": True, "iconColor": "purple", "step": "30s",
        "expr": written(f"sum by (service, action) (increase(rag_events_total{{@, {actions}}}[1m])) > 0"),
        "titleFormat": "{{service}}", "textFormat": "{{action}}", "tagKeys": "service,action",
    }  # fmt: skip


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
