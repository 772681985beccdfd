"""A real Prometheus scrapes a real server, with the committed rules, and draws what the dashboard draws."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from chat_server import ChatServer, chat_server, problem
from ragworks.api.server import ListeningServer
from ragworks.app import build
from ragworks.settings import load
from scraping import MONITORING, Prometheus, prometheus

DOCUMENTS = "/v1/collections/default/documents"
SEARCH = "/v1/collections/default/search"
ASK = "/v1/collections/default/ask"
TEXT = "The battery lasts 41 minutes. It is charged in an hour."

EMPTY_WHERE_ALL_IS_WELL = ["Retried, hedged, left out, panicked, refused"]
"""Panels that show only what is not zero."""
PLACEHOLDERS = {"$instance": ".*", "$__rate_interval": "1m"}


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Prometheus, ChatServer]]:
    """A server with an embedding engine in a process of its own and a chat model, and a Prometheus that scrapes it."""
    async with chat_server() as chat:
        endpoint = {
            "model": "chat", "urls": [chat.url], "timeout_s": 5,
            "input_price_per_million_tokens": 1.0, "output_price_per_million_tokens": 4.0,
        }  # fmt: skip
        settings = load(
            environ={},
            server={"data": str(folder / "data")},
            embeddings_service={"model_name": "hashing", "replicas": {"runtime": "process"}},
            document_processor={"workers": 1},
            generation_service={"generator": "openai", "endpoint": endpoint},
            log={"level": "error"},
        )
        app = build(settings)
        async with app, ListeningServer(app, "127.0.0.1", 0) as server:
            (folder / "prometheus").mkdir()
            async with (
                httpx.AsyncClient(base_url=server.url, timeout=30) as http,
                prometheus(folder / "prometheus", server, app.metrics) as seen,
            ):
                yield http, seen, chat


async def use(http: httpx.AsyncClient) -> None:
    """A bit of everything, with one error and one act of scaling."""
    assert (await http.post("/v1/services/embeddings_service/scale", json={"instances": 2})).status_code == 200
    assert (await http.post("/v1/collections/nobody/search", json={"query": "battery"})).status_code == 404
    documents = [{"id": f"{number}", "text": f"{TEXT} Number {number}."} for number in range(3)]
    await done(http, await http.post(DOCUMENTS, json={"documents": documents}))
    for _ in range(3):
        assert (await http.post(SEARCH, json={"query": "battery"})).status_code == 200
        answer = await http.post(ASK, json={"question": "How long does the battery last?"})
        assert answer.status_code == 200
    rating = {"id": answer.json()["id"], "rating": "up"}
    assert (await http.post("/v1/collections/default/feedback", json=rating)).status_code == 200


async def done(http: httpx.AsyncClient, accepted: httpx.Response) -> None:
    """Returns when the job has ended."""
    assert accepted.status_code == 202, accepted.text
    async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
        [_ async for _ in events.aiter_lines()]


def filled(expr: str) -> str:
    for name, value in PLACEHOLDERS.items():
        expr = expr.replace(name, value)
    return expr


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def drawn() -> dict[str, list[str]]:
    """The expressions of each panel, by its title, and those of the annotations."""
    dashboard = json.loads((MONITORING / "grafana" / "ragworks.json").read_text())
    panels = {panel["title"]: panel.get("targets", []) for panel in dashboard["panels"] if panel["type"] != "row"}
    panels |= {f"annotation {one['name']}": [one] for one in dashboard["annotations"]["list"]}
    return {title: [filled(target["expr"]) for target in targets] for title, targets in panels.items()}


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector below a parsed expression."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.BinaryExpr():
            yield from (*selectors(node.lhs), *selectors(node.rhs))
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from selectors(node.expr)
        case promql_parser.SubqueryExpr():
            yield from selectors(node.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:
            raise AssertionError(f"what is {type(node).__name__}?")


def named(expr: str) -> Iterator[str]:
    """One selector for each metric, and for each value of a label, that an expression names."""
    for selector in selectors(promql_parser.parse(expr)):
        yield selector.name
        for one in selector.matchers.matchers:
            if one.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re):
                for value in one.value.split("|"):
                    yield f"{selector.name}{{{one.name}=~{json.dumps(value)}}}"


def test_every_value_of_an_expression_is_looked_at() -> None:
    expr = 'sum by (a) (rate(x{b=~"c|d.", e!="f"}[5m])) > 2 and on (a) absent(y{g="h"}) or -max_over_time((z > 1)[1d:])'
    assert list(named(expr)) == ["x", 'x{b=~"c"}', 'x{b=~"d."}', "y", 'y{g=~"h"}', "z"]


@pytest.mark.timeout(180)
async def test_a_used_server_gives_every_rule_and_every_panel_what_it_asks_for(tmp_path: Path) -> None:
    async with watched(tmp_path) as (http, seen, _):
        await use(http)
        await seen.until('rag_feedback_total{rating="up"} == 1')
        await seen.until("count(ragworks:slo_budget_left:ratio30d) == 4 and on () ragworks:cache_hits:ratio30m")

        asked = [filled(rule["expr"]) for rule in rules()] + [expr for exprs in drawn().values() for expr in exprs]
        for selector in sorted({selector for expr in asked for selector in named(expr)}):
            assert await seen.api("series", **{"match[]": selector}), f"no series is {selector}"

        assert [rule for rule in await seen.rules() if rule["health"] != "ok"] == []
        for recorded in {rule["record"] for rule in rules() if "record" in rule}:
            assert await seen.query(recorded), recorded
        slos = {"availability", "latency", "ingestion", "freshness"}
        assert {labels["slo"] for labels, _ in await seen.query("ragworks:slo_burn:rate1h")} == slos

        empty = []
        for title, exprs in drawn().items():
            values = [value for expr in exprs for _, value in await seen.query(expr)]
            if not [value for value in values if not math.isnan(value)]:
                empty.append(title)
        assert empty == EMPTY_WHERE_ALL_IS_WELL
        pages = [name for name, one in (await seen.firing()).items() if one["labels"]["severity"] == "page"]
        assert pages == []  # tickets there may be: this machine may be slow


@pytest.mark.timeout(180)
async def test_a_model_that_goes_away_pages_and_says_what_to_do(tmp_path: Path) -> None:
    """Also when all that failed did so between two scrapes: a counter that appears with its first failures has not
    risen, as Prometheus sees it, so each stands there at zero from the start."""
    async with watched(tmp_path) as (http, seen, chat):
        await use(http)
        await seen.until('ragworks:slo_burn:rate5m{slo="availability"} == 0')
        chat.always = problem(503)
        failed = [await http.post(ASK, json={"question": "How long does the battery last?"}) for _ in range(10)]
        assert {answer.status_code for answer in failed} == {503}
        await seen.until('ALERTS{alertname="RagworksQuestionsFail", alertstate="firing"}')
        alert = (await seen.firing())["RagworksQuestionsFail"]
        assert alert["labels"]["severity"] == "page"
        assert "`ragworks status`" in alert["annotations"]["description"]


@pytest.mark.timeout(180)
async def test_files_that_nobody_can_read_are_told_of_and_cost_no_budget(tmp_path: Path) -> None:
    async with watched(tmp_path) as (http, seen, _):
        broken = [("files", (f"{number}.pdf", b"%PDF-1.7 and no more")) for number in range(20)]
        await done(http, await http.post(DOCUMENTS, files=broken))
        await seen.until('ALERTS{alertname="RagworksDeadLettersGrow", alertstate="firing"}')
        await seen.until('ragworks:slo_all:rate5m{slo="ingestion"} > 0')
        assert await seen.query('ragworks:slo_bad:rate5m{slo="ingestion"} > 0') == []
        assert "RagworksDocumentsFail" not in await seen.firing()
