"""The alert rules as Prometheus' own tool sees them, and as somebody does who is woken by one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragworks.cli import main

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
GUIDE = ROOT / "docs" / "guides" / "monitor.md"


def promtool(*arguments: str | Path) -> str:
    tool = shutil.which("promtool")
    assert tool, "the tests need promtool and prometheus; on Debian and Ubuntu: apt install prometheus"
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def rules(kind: str) -> dict[str, dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


ALERTS = rules("alert")


def test_the_configuration_and_its_rules_are_valid() -> None:
    assert promtool("check", "config", MONITORING / "prometheus.yml").count("rules found") == len(RULES)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("file", sorted(Path(__file__).parent.glob("*_test.yml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    files = [yaml.safe_load(file.read_text()) for file in Path(__file__).parent.glob("*_test.yml")]
    cases = [case for file in files for case in file["tests"]]
    samples = [one for case in cases for query in case.get("promql_expr_test", ()) for one in query["exp_samples"]]
    fired = set(re.findall(r'alertname="(\w+)"', " ".join(sample["labels"] for sample in samples)))
    fired |= {one["alertname"] for case in cases for one in case.get("alert_rule_test", ()) if one["exp_alerts"]}
    assert fired >= set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_it_means_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert "`ragworks " in alert["annotations"]["description"]
    page, _, section = alert["annotations"]["runbook"].partition("#")
    assert ROOT / page == GUIDE
    assert section in anchors(GUIDE.read_text(encoding="utf-8"))


def commands() -> set[str]:
    """What the alerts tell to run, with a service and a job in place of what is filled in."""
    texts = " ".join(alert["annotations"]["description"] for alert in ALERTS.values())
    found: set[str] = set(re.findall(r"`ragworks ([^`]+)`", texts))
    return {re.sub(r"\{\{.*?\}\}", "embeddings_service", command) for command in found}


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_command_that_an_alert_names_is_there_with_its_options(command: str) -> None:
    assert main([*command.split(), "--help"]) == 0


def anchors(page: str) -> set[str]:
    """Of its headings, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
