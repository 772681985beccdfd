"""Settings: one tree, three sources, and an error that names key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragworks.errors import InvalidSettings
from ragworks.settings import Settings, describe, load


def written(folder: Path, text: str) -> str:
    file = folder / "ragworks.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_then_the_environment_then_options_decide(tmp_path: Path) -> None:
    file = written(tmp_path, '[server]\nport = 1\nhost = "localhost"\n[retrieval_service]\ndense_weight = 0.5\n')
    environment = {
        "RAGWORKS_SERVER__PORT": "2",
        "RAGWORKS_EMBEDDINGS_SERVICE__CACHE_CONFIG__MAX_SIZE": "7",
        "HOME": "/",
    }
    found = load(file, environment, server={"port": 3, "host": None})
    assert (found.server.port, found.server.host, found.retrieval_service.dense_weight) == (3, "localhost", 0.5)
    assert found.embeddings_service.cache_config.max_size == 7


def test_without_any_source_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings()


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert load(written(tmp_path, "\ufeff[server]\nport = 1\n"), {}).server.port == 1


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[server]\nprot = 1", r"unknown setting server\.prot; did you mean server\.port\?"),
        ("[sever]\nport = 1", r"unknown setting sever; did you mean server\?"),
        ("server = 3", r"\[server\] must be a table of settings, found 3"),
        ('[server]\nport = "x"', r"server\.port must be a whole number, found 'x'"),
        ("[server]\nport = 1.5", r"server\.port must be a whole number, found 1\.5"),
        ("[server]\nport = true", r"server\.port must be a whole number, found True"),
        ("[server]\nport = 70000", r"server\.port must be from 0 to 65535, found 70000"),
        ("[document_processor]\nmax_attempts = 0", r"max_attempts must be at least 1, found 0"),
        ("[generation_service]\nsupport_threshold = nan", r"support_threshold must be a number, found nan"),
        (
            '[embeddings_service]\nmodel_name = "gpt"',
            r"model_name must be one of bge-small-en-v1\.5, hashing, found 'gpt'$",
        ),
        (
            '[embeddings_service]\nmodel_name = "bge-small-en"',
            r"found 'bge-small-en'; did you mean bge-small-en-v1\.5\?",
        ),
        (
            '[embeddings_service.replicas]\nstrategy = "p3c"',
            r"strategy must be one of .*, found 'p3c'; did you mean p2c",
        ),
        (
            "[embeddings_service.replicas]\nmin_instances = 4\nmax_instances = 2",
            r"replicas\.min_instances must be at most max_instances \(2\), found 4",
        ),
        (
            "[embeddings_service.replicas]\ninstances = 20",
            r"replicas\.instances must be from 1 to 10 .*, found 20",
        ),
        (
            '[vector_store.replicas]\nruntime = "process"',
            r"vector_store\.replicas\.runtime must be inline, found 'process': it owns the database",
        ),
        ("[retrieval_service.replicas]\ninstances = 2", r"retrieval_service\.replicas\.instances must be 1, found 2"),
        ("[document_processor.replicas]\ninstances = 2", r"set document_processor\.workers"),
        (
            '[document_processor.replicas]\nstrategy = "p2c"',
            r"document_processor\.replicas\.strategy has no effect there, found 'p2c': its replicas are worker",
        ),
        (
            "[document_processor]\nworkers = 8\n[document_processor.replicas]\nmax_instances = 4",
            r"workers must be at most document_processor\.replicas\.max_instances \(4\), found 8",
        ),
        (
            "[document_processor]\nworkers = 1\n[document_processor.replicas]\nmin_instances = 2",
            r"workers must be at least document_processor\.replicas\.min_instances \(2\), found 1",
        ),
        (
            "[vector_store.replicas]\nmax_instances = 3",
            r"vector_store\.replicas\.max_instances has no effect there, found 3: it owns the database",
        ),
        ('[generation_service.replicas]\nstrategy = "p2c"', r"replicas\.strategy has no effect there"),
        ("[embeddings_service.replicas]\nhedge_quantile = 1.0", r"hedge_quantile must be from 0 to 0\.999, found 1\.0"),
        ("[implementations]\nmine = 3", r"implementations must be a table of texts, found \{'mine': 3\}"),
        ("profile = 3", r"\[profile\] must be a table of profiles, as in \[profile\.production\], found 3"),
        ("[profile.test.server]\nprot = 1", r"profile\.test\.server\.prot; did you mean profile\.test\.server\.port"),
        ('[server]\nservices = ["vector_store", "x"]', r"server\.services must be one of .*, found 'x'"),
        ("[server", r"is not valid TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_key_value_and_what_is_allowed(
    tmp_path: Path, toml: str, said: str
) -> None:
    with pytest.raises(InvalidSettings, match=said):
        load(written(tmp_path, toml), {}, server={"host": "127.0.0.1"})


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAGWORKS_SERVER_PORT": "1"}, "two underscores"),
        ({"RAGWORKS_SERVER": "1"}, "two underscores"),
        ({"RAGWORKS_SERVER__PROT": "1"}, r"did you mean server\.port"),
        ({"RAGWORKS_SERVER__PORT": "1", "RAGWORKS_SERVER__PORT__X": "1"}, "a setting by itself"),
        ({"RAGWORKS_EMBEDDINGS_SERVICE__CACHE_ENABLED": "maybe"}, "must be true or false, found 'maybe'"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused_not_ignored(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidSettings, match=said):
        load(written(tmp_path, ""), environment)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"there is no configuration file .*none\.toml"):
        load(str(tmp_path / "none.toml"), {})


def test_openais_variables_count_as_defaults_for_endpoints(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    defaults = load(written(tmp_path, ""), environment)
    for found in (defaults.embeddings_service.endpoint, defaults.generation_service.endpoint):
        assert (found.api_key, found.urls) == ("sk-1", ("http://127.0.0.1:1/v1",))
    file = written(tmp_path, '[embeddings_service.endpoint]\napi_key = "sk-2"\nurls = ["http://a/v1", "http://b/v1"]')
    found = load(file, environment).embeddings_service.endpoint
    assert (found.api_key, found.urls) == ("sk-2", ("http://a/v1", "http://b/v1"))
    assert load(written(tmp_path, ""), {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}) == Settings()


def test_a_key_is_in_no_representation_of_the_settings(tmp_path: Path) -> None:
    assert "sk-1" not in repr(load(written(tmp_path, ""), {"OPENAI_API_KEY": "sk-1"}))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "bge-small-en-v1.5"),
        ({"model_folder": "/models/e5-small/"}, "e5-small"),
        ({"endpoint": {"model": "text-embedding-3-small"}}, "text-embedding-3-small"),
    ],
)
def test_clients_know_the_model_by_its_own_name(tmp_path: Path, given: dict[str, object], name: str) -> None:
    assert load(written(tmp_path, ""), {}, embeddings_service=given).embeddings_service.model == name


def test_every_setting_says_what_it_means() -> None:
    rows = describe(Settings())
    assert len(rows) > 30
    assert all(doc for _, _, doc in rows)
    assert len({key for key, _, _ in rows}) == len(rows)


def test_no_secret_shows_where_settings_are_printed(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "hush", "RAGWORKS_DOCUMENT_PROCESSOR__WEBHOOK_SECRET": "hush"}
    assert "hush" not in repr(load(written(tmp_path, ""), environment))


def test_a_profile_lies_over_the_base_and_under_the_environment(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[server]\nport = 1\n[retrieval_service]\ncandidates = 7\n"
        "[profile.production.server]\nport = 2\n[profile.small.retrieval_service]\ncandidates = 3\n",
    )
    assert (load(file, {}).server.port, load(file, {}).retrieval_service.candidates) == (1, 7)
    assert load(file, {"RAGWORKS_PROFILE": "production"}).server.port == 2
    found = load(file, {"RAGWORKS_PROFILE": "production", "RAGWORKS_SERVER__PORT": "3"}, profile="small")
    assert (found.server.port, found.retrieval_service.candidates) == (3, 3)
    with pytest.raises(InvalidSettings, match=r"there is no \[profile\.prodution\] .*; did you mean production\?"):
        load(file, {}, profile="prodution")


def test_another_implementation_is_named_in_one_line_and_registered_in_a_table(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[implementations]\nmine = "my.engines:Engine"\n[embeddings_service.replicas]\nimplementation = "mine"\n',
    )
    found = load(file, {"RAGWORKS_IMPLEMENTATIONS__OTHER": "other:make"})
    assert found.implementations == {"mine": "my.engines:Engine", "other": "other:make"}
    assert found.replicas("embeddings_service").implementation == "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cooldown": -1}, "embeddings_service.scaling.cooldown must be at least 0, found -1"),
        ({"policy": "guess"}, "embeddings_service.scaling.policy must be one of threshold, target, predictive"),
        (
            {"thresholds": {"scale_down": {"cpu_threshold": 80}}},
            r"embeddings_service.scaling.thresholds.scale_down.cpu_threshold must be below 70 "
            r"\(thresholds.scale_up.cpu_threshold\); found 80",
        ),
    ],
)
def test_scaling_that_contradicts_itself_is_refused_with_the_key(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        load(None, {}, embeddings_service={"scaling": given})


COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", **COLLECTOR}, False),
        ({"OTEL_TRACES_EXPORTER": "console", **COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "true", **COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "false", **COLLECTOR}, True),
        ({"RAGWORKS_TRACES__ENABLED": "true"}, True),
        ({"RAGWORKS_TRACES__ENABLED": "false", **COLLECTOR}, False),
        ({"RAGWORKS_TRACES__ENABLED": "true", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_opentelemetrys_variables_switch_traces_on_and_off(environment: dict[str, str], enabled: bool) -> None:
    assert load(None, environment).traces.enabled is enabled


@pytest.mark.parametrize(
    ("said", "captured"),
    [("true", True), ("SPAN_ONLY", True), ("span_and_event", True), ("event_only", False), ("false", False)],
)
def test_texts_are_captured_when_opentelemetrys_variable_says_so(said: str, captured: bool) -> None:
    environment = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": said}
    assert load(None, environment).traces.capture_text is captured
    assert not load(None, environment, traces={"capture_text": False}).traces.capture_text
