"""Options that are parsed by us, and settings as they are shown."""

from __future__ import annotations

import json

import pytest
import structlog
import typer

from ragworks.cli import main
from ragworks.cli.asking import parsed_object
from ragworks.cli.configuring import HIDDEN, shown
from ragworks.cli.ingesting import parsed_metadata


def test_metadata_values_are_numbers_and_truths_where_they_look_so_and_text_otherwise():
    assert parsed_metadata(["year=2026", "draft=false", "team=ops", "note=a=b", "empty="]) == {
        "year": 2026,
        "draft": False,
        "team": "ops",
        "note": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize("pair", ["year", "=2026"])
def test_metadata_without_key_or_value_is_wrong_usage(pair):
    with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
        parsed_metadata([pair])


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_filter_must_be_a_json_object(text):
    with pytest.raises(typer.BadParameter, match="JSON object"):
        parsed_object(text, "--filter")


def test_secrets_that_are_set_are_hidden_and_token_counts_are_not():
    assert shown("generation_service.openai.api_key", "sk-1") == HIDDEN
    assert shown("generation_service.openai.api_key", "") == ""
    assert shown("embeddings_service.batch_tokens", 4096) == 4096


@pytest.fixture
def _empty_folder(tmp_path, monkeypatch):
    logs = structlog.get_config()
    monkeypatch.chdir(tmp_path)
    yield
    structlog.configure(**logs)


@pytest.mark.usefixtures("_empty_folder")
def test_config_show_prints_what_is_in_force_with_its_meaning(capsys, monkeypatch):
    monkeypatch.setenv("RAGWORKS_SERVER__PORT", "8123")
    assert main(["config", "show", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    assert rows["server.port"]["value"] == 8123
    assert all(row["doc"] for row in rows.values())


@pytest.mark.usefixtures("_empty_folder")
def test_an_unknown_setting_is_refused_with_the_nearest_one(capsys, monkeypatch):
    monkeypatch.setenv("RAGWORKS_SERVER__PROT", "8123")
    assert main(["config", "show"]) == 2
    assert "did you mean server.port?" in capsys.readouterr().err


@pytest.mark.usefixtures("_empty_folder")
def test_a_command_that_only_reads_makes_no_data_folder(capsys, tmp_path):
    assert main(["search", "anything"]) == 1
    assert "there is no data folder ./.ragworks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
