"""What the composition root refuses before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragworks.app import build
from ragworks.errors import InvalidSettings
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.settings import SERVICES, EmbeddingsSettings, load
from ragworks.testing import ScriptedModel


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_folder": "/m", "endpoint": {"model": "m"}}, "name two models; keep one of them"),
        ({"query_prefix": "query: "}, "bge-small-en-v1.5 brings its own"),
        ({"endpoint": {"model": "m", "urls": ["api.openai.com/v1"]}}, "must be like http://127.0.0.1:8080/v1"),
        (
            {"endpoint": {"model": "m", "urls": ["https://me:pass@host/v1"]}},
            "without a name, a password or a query .*host 'host'",
        ),
        ({"endpoint": {"model": "m", "urls": ["http://[/v1"]}}, "must be like"),
        ({"endpoint": {"model": "m", "urls": ["http://a:port/v1"]}}, "must be like"),
        ({"endpoint": {"model": "m", "urls": ["http://a/v1", "http://a/v1/"]}}, "a/v1 more than once"),
        ({"endpoint": {"model": "m"}, "replicas": {"runtime": "process"}}, r"are its endpoint\.urls"),
        ({"endpoint": {"model": "m", "urls": []}}, "must name at least one"),
    ],
)
def test_an_embedding_model_that_cannot_be_meant_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    settings = load(environ={}, server={"data": str(tmp_path / "data")}, embeddings_service=given)
    with pytest.raises(InvalidSettings, match=said) as caught:
        build(settings)
    assert "me:pass" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_implementation_that_is_not_registered_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    wanted = {"model_name": "hashing", "replicas": {"implementation": "mine"}}
    settings = load(environ={}, server={"data": str(tmp_path / "data")}, embeddings_service=wanted)
    with pytest.raises(InvalidSettings, match=r"one of default, mime, found 'mine'; did you mean"):
        build(settings, implementations={"mime": object})
    assert not (tmp_path / "data").exists()


class Mirrored(EmbeddingEngine):
    """An engine of another make, which says so."""

    version = "7"

    def __init__(self, settings: EmbeddingsSettings) -> None:
        super().__init__(settings, lambda _: ScriptedModel())


async def test_another_implementation_runs_where_it_is_named_and_is_shown_beside_its_replica(tmp_path: Path) -> None:
    wanted = {"model_name": "hashing", "replicas": {"implementation": "mine"}}
    settings = load(environ={}, server={"data": str(tmp_path)}, embeddings_service=wanted)
    async with build(settings, implementations={"mine": Mirrored}) as app:
        [replica] = app.orchestrator.report("embeddings_service").replicas
        assert (replica.implementation, replica.version, replica.status) == ("mine", "7", "healthy")
        assert app.embeddings_service.fingerprint == "scripted:1"
        assert (await app.embeddings_service.embed_texts(["one"])).failed == ()


async def test_any_service_can_be_swapped_by_a_line_of_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by a subclass of ours, named as "module:factory"; the engine in a process of its own, which imports it."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    tables = "".join(f'[{service}.replicas]\nimplementation = "{service}"\n' for service in SERVICES)
    names = "".join(f'{service} = "swapped:{service}"\n' for service in SERVICES)
    file = tmp_path / "ragworks.toml"
    file.write_text(f'{tables}runtime = "inline"\n[implementations]\n{names}')
    settings = load(
        str(file), environ={}, server={"data": str(tmp_path / "data")},
        embeddings_service={"model_name": "hashing", "replicas": {"runtime": "process"}},
    )  # fmt: skip
    async with build(settings, serving=True) as app:
        assert app.orchestrator.ready() == (True, {})
        for service in SERVICES:
            for replica in app.orchestrator.report(service).replicas:
                assert (service, replica.implementation, replica.version) == (service, service, "swapped")
        assert (await app.embeddings_service.embed_texts(["one"])).failed == ()


async def test_a_call_that_a_replica_is_slow_with_is_sent_to_a_second_one_where_the_settings_say_so(
    tmp_path: Path,
) -> None:
    models: list[ScriptedModel] = []

    def mine(settings: EmbeddingsSettings) -> EmbeddingEngine:
        models.append(ScriptedModel())
        return EmbeddingEngine(settings, lambda _, model=models[-1]: model)  # type: ignore[misc]

    replicas = {"implementation": "mine", "instances": 2, "hedge_quantile": 0.9}
    wanted = {"model_name": "hashing", "cache_enabled": False, "replicas": replicas}
    settings = load(environ={}, server={"data": str(tmp_path)}, embeddings_service=wanted)
    async with build(settings, implementations={"mine": mine}) as app:
        for place in range(80):  # 50 answers tell how long one takes
            await app.embeddings_service.embed_texts([f"text {place}"], kind="question")
        models[0].gate.clear()
        try:
            seen = len(models[0].batches)
            while len(models[0].batches) == seen:  # until the one that hangs is asked
                found = await app.embeddings_service.embed_texts([f"more {len(models[1].batches)}"], kind="question")
                assert found.failed == ()
        finally:
            models[0].gate.set()


async def test_a_replica_of_another_model_is_refused_with_both_named(tmp_path: Path) -> None:
    """Vectors of two models in one index find nothing, and nothing says so."""
    settings = load(
        environ={},
        server={"data": str(tmp_path)},
        embeddings_service={"model_name": "hashing", "replicas": {"implementation": "mine"}},
    )
    models = iter(["first:1", "second:1", "second:1", "second:1"])

    def drifting(settings: EmbeddingsSettings) -> EmbeddingEngine:
        model = ScriptedModel()
        model.fingerprint = next(models)
        return EmbeddingEngine(settings, lambda _: model)

    async with build(settings, implementations={"mine": drifting}) as app:
        await app.orchestrator.scale("embeddings_service", 2, "by hand")
        good, bad = app.orchestrator.report("embeddings_service").replicas
        assert (good.status, bad.life) == ("healthy", "starting")
        assert "runs model second:1, and those before it first:1" in bad.note
        assert (await app.embeddings_service.embed_texts(["one"])).failed == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"generator": "openai"}, "belong together; found generator 'openai' and model ''"),
        ({"endpoint": {"model": "m"}}, "belong together; found generator 'extractive' and model 'm'"),
        (
            {"generator": "openai", "endpoint": {"model": "m", "urls": []}},
            r"generation_service\.endpoint\.urls must name",
        ),
    ],
)
def test_a_generator_that_cannot_be_meant_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    settings = load(environ={}, server={"data": str(tmp_path / "data")}, generation_service=given)
    with pytest.raises(InvalidSettings, match=said):
        build(settings)
