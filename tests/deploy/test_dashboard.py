"""The dashboard as Grafana will read it. No Grafana runs here: what it draws is asked of Prometheus in
test_scraping.py."""

from __future__ import annotations

import json
import runpy
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
FILE = MONITORING / "grafana" / "ragworks.json"
DASHBOARD = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_file_is_what_the_script_makes() -> None:
    script = runpy.run_path(str(MONITORING / "dashboard.py"))
    assert FILE.read_text(encoding="utf-8") == script["text"](), "run: python deploy/monitoring/dashboard.py"


def test_panels_have_an_id_and_a_place_of_their_own_within_24_columns() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[length] and other[start] < one[start] + one[length]
        for start, length in (("x", "w"), ("y", "h"))
    )


def test_the_first_row_is_what_users_feel() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows[0] == "What users feel"
    assert rows[1:] == [
        "Search, step by step",
        "Ingestion",
        "Embedding",
        "Replicas and scaling",
        "Machine",
        "Generation",
    ]


def test_every_panel_has_a_unit_curves_with_legends_and_the_data_source_that_was_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == chosen
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"] == chosen
            assert target["legendFormat"]
            assert 'instance=~"$instance"' in target["expr"]


def test_thresholds_rise_from_a_base_without_a_value() -> None:
    for panel in PANELS:
        first, *rest = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert rest == sorted(rest)


def test_the_guide_mounts_the_dashboard_where_grafana_is_told_to_look() -> None:
    provider = yaml.safe_load((FILE.parent / "provisioning" / "dashboards" / "ragworks.yml").read_text())["providers"][
        0
    ]
    source = yaml.safe_load((FILE.parent / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://127.0.0.1:9090"  # where Prometheus listens unless told otherwise
    guide = (MONITORING.parents[1] / "docs" / "guides" / "monitor.md").read_text(encoding="utf-8")
    assert f"-v $PWD/deploy/monitoring/grafana:{provider['options']['path']} " in guide
    assert "-v $PWD/deploy/monitoring/grafana/provisioning:/etc/grafana/provisioning " in guide


def test_variables_let_a_reader_choose_the_data_source_and_the_servers() -> None:
    variables: dict[str, Any] = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["instance"]["query"]["query"] == 'label_values(up{job="ragworks"}, instance)'
    used = {
        name for name in ("$datasource", "${datasource}", "$instance", "$__rate_interval") if name in FILE.read_text()
    }
    assert used == {"${datasource}", "$instance", "$__rate_interval"}
