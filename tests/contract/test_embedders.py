"""What every embedding model promises: without weights, bundled, from a folder; and every provider, as a service."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from embedding_server import embedding_server
from folders import FILES, model_folder
from ragworks.clock import SystemClock
from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.models.encoding import HEAD
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.onnx_folder import FolderEmbedder
from ragworks.models.onnx_weights import QUESTION_PREFIX, OnnxEmbedder
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.models.openvino_weights import OpenVinoEmbedder
from ragworks.protocols import Model
from ragworks.settings import EmbeddingsSettings, EndpointSettings
from ragworks.testing import LocalEmbeddings, endpoint_set

TEXTS = [
    "The lease is renewed while the worker makes progress.",
    "Bananas ripen faster in a paper bag.",
    "A worker renews its lease as long as it makes progress.",
    "x",
    "Ein Satz mit Umlauten: größer, schöner, früher.",
]
SAME = 0.98
"""int8 activations are quantised over the batch: .996 was measured for sentences, .985 for a single letter."""
PROMPTS = {"config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}}}


def bundled_as_folder(place: Path) -> str:
    """The bundled model as a sentence-transformers folder, with the prompt of its card."""
    files = locate(BGE_SMALL_EN)
    (place / "model.onnx").symlink_to(files.weights)
    (place / "tokenizer.json").symlink_to(files.tokenizer)
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (place / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": QUESTION_PREFIX}}))
    return str(place)


MAKERS = {
    "hashing": lambda place: HashingEmbedder(),
    "bundled": lambda place: OnnxEmbedder(threads=1),
    "bundled, by OpenVINO": lambda place: OpenVinoEmbedder(threads=1),
    "folder": lambda place: FolderEmbedder(model_folder(place, files=FILES | PROMPTS), threads=1),
    "bundled as a folder": lambda place: FolderEmbedder(bundled_as_folder(place), threads=1),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One instance for all tests: loading 34 MB again would test nothing more."""
    return MAKERS[request.param](tmp_path_factory.mktemp("model"))


def test_vectors_are_unit_float32_rows_in_order(model):
    vectors = model.embed(TEXTS, "passage")
    assert vectors.shape == (len(TEXTS), model.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


def test_no_texts_give_no_rows(model):
    assert model.embed([], "passage").shape == (0, model.dimension)
    assert model.lengths([], "passage") == []


def test_a_text_gets_the_same_vector_alone_in_a_batch_and_in_another_order(model):
    together = model.embed(TEXTS, "passage")
    backwards = model.embed(TEXTS[::-1], "passage")[::-1]
    alone = np.vstack([model.embed([text], "passage") for text in TEXTS])
    assert (np.einsum("ij,ij->i", together, alone) > SAME).all()
    assert (np.einsum("ij,ij->i", together, backwards) > SAME).all()


def test_paraphrases_are_closer_than_strangers(model):
    one, stranger, paraphrase = model.embed(TEXTS[:3], "passage")
    assert one @ paraphrase > one @ stranger + 0.2


def test_a_question_is_encoded_otherwise_than_the_same_words_as_a_passage(model):
    question = model.embed([TEXTS[0]], "question")[0]
    passage = model.embed([TEXTS[0]], "passage")[0]
    assert 0.5 < question @ passage < 0.9999


def test_lengths_grow_with_the_text_and_tell_those_over_the_limit(model):
    short, long, longest = model.lengths(["one word", "word " * 600, "word " * 200_000], "passage")
    assert 2 <= short < 10
    assert 600 <= long < 610
    assert longest > model.max_tokens


def test_a_question_that_its_prefix_makes_too_long_is_measured_as_too_long():
    """It was cut, and nothing said so."""
    model, words = OnnxEmbedder(threads=1), "word " * 505
    assert model.lengths([words], "passage")[0] < model.max_tokens < model.lengths([words], "question")[0]
    cut, other = model.embed([words + "battery", words + "keel"], "question")
    assert cut @ other > SAME


def test_a_megabyte_of_long_words_is_measured_and_cut_as_any_text_is(model):
    """Only the head of a long text is tokenised if that is over the limit; long words may be fewer there."""
    long_words = " ".join("x" * HEAD * 100 for _ in range(600))
    assert model.lengths([long_words], "passage")[0] >= 600
    assert model.lengths(["x" * 1_000_000], "passage")[0] < 10


def test_a_text_over_the_limit_is_cut_to_it_and_still_has_a_unit_vector(model):
    cut, other = model.embed(["word " * 2000 + "tail", "word " * 2000 + "something else"], "passage")
    assert cut @ other > SAME


@pytest.mark.parametrize("name", list(MAKERS))
def test_the_fingerprint_never_changes_between_instances(name, tmp_path_factory):
    one, other = (MAKERS[name](tmp_path_factory.mktemp("model")) for _ in range(2))
    assert one.fingerprint == other.fingerprint


def test_every_model_has_a_fingerprint_of_its_own(tmp_path_factory):
    assert len({make(tmp_path_factory.mktemp("model")).fingerprint for make in MAKERS.values()}) == len(MAKERS)


def test_the_bundled_model_brought_as_a_folder_gives_the_bundled_models_vectors(tmp_path):
    folder, bundled = FolderEmbedder(bundled_as_folder(tmp_path), threads=1), OnnxEmbedder(threads=1)
    for kind in ("question", "passage"):
        assert np.allclose(folder.embed([TEXTS[0]], kind), bundled.embed([TEXTS[0]], kind), atol=1e-6)


@pytest.fixture(params=["hashing", "bundled", "folder", "endpoint"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalEmbeddings]:
    """Every provider behind the service, as callers meet it."""
    async with embedding_server() as server:
        endpoint = EndpointSettings(model="some-model", urls=(server.url,), max_text_bytes=2000)
        prefixes = {"question": "query: ", "passage": "passage: "}
        made = (
            OpenAIEmbedder(endpoint, prefixes, endpoint_set(endpoint.urls, SystemClock()), SystemClock())
            if request.param == "endpoint"
            else MAKERS[request.param](tmp_path)
        )
        settings = EmbeddingsSettings(endpoint=endpoint)
        service = LocalEmbeddings(settings, lambda: made, None, SystemClock())
        await service.initialize()
        try:
            yield service
        finally:
            await service.shutdown()


async def test_every_provider_answers_in_order_and_never_twice_for_the_same_text(service):
    first = await service.embed_texts(TEXTS)
    again = await service.embed_texts(TEXTS[::-1])
    assert all(abs(np.linalg.norm(row) - 1) < 1e-3 and row.shape == (service.dimension,) for row in first.embeddings)
    assert all(np.array_equal(one, other) for one, other in zip(first.embeddings, again.embeddings[::-1], strict=True))
    assert (again.cache_stats["cache_hit_rate"], again.batch_size_used) == (1.0, 0)


async def test_every_provider_keeps_questions_and_passages_apart(service):
    question = (await service.embed_texts([TEXTS[0]], kind="question")).embeddings[0]
    passage = (await service.embed_texts([TEXTS[0]])).embeddings[0]
    assert 0.5 < question @ passage < 0.9999
    assert service.embedding_key(TEXTS[0], "question") != service.embedding_key(TEXTS[0])


async def test_no_texts_are_an_empty_result_from_every_provider(service):
    result = await service.embed_texts([])
    assert (list(result.embeddings), result.failed, result.truncated) == ([], (), ())


async def test_bad_texts_fail_alone_with_a_reason_and_long_ones_are_said_to_be_cut(service):
    result = await service.embed_texts(["fine", "", "  \n", "half a \ud800 pair", "word " * 20_000])
    assert [row is None for row in result.embeddings] == [False, True, True, True, False]
    assert [(one.index, one.transient) for one in result.failed] == [(1, False), (2, False), (3, False)]
    assert [one.reason[:25] for one in result.failed] == ["the text is empty"] * 2 + ["the text holds a lone sur"]
    assert result.truncated == (4,)


async def test_every_provider_is_healthy_once_it_is_up(service):
    assert (await service.check_health()).status == "healthy"
    assert service.stats()["queue_size"] == 0


def test_an_engine_that_quantises_by_row_gives_a_text_nearly_the_same_vector_in_any_batch():
    model = OpenVinoEmbedder(threads=1)
    together = model.embed(TEXTS, "passage")
    alone = np.vstack([model.embed([text], "passage") for text in TEXTS])
    assert (np.einsum("ij,ij->i", together, alone) > 0.999).all()


def test_engines_agree_on_the_same_weights():
    rows = [make(threads=1).embed(TEXTS, "passage") for make in (OnnxEmbedder, OpenVinoEmbedder)]
    assert (np.einsum("ij,ij->i", *rows) > SAME).all()
