"""What every embedding model promises, over the one without weights and the bundled one."""

import numpy as np
import pytest

from ragworks.models.hashing import HashingEmbedder
from ragworks.models.onnx_weights import HEAD, OnnxEmbedder
from ragworks.models.openvino_weights import OpenVinoEmbedder
from ragworks.protocols import Model

TEXTS = [
    "The lease is renewed while the worker makes progress.",
    "Bananas ripen faster in a paper bag.",
    "A worker renews its lease as long as it makes progress.",
    "x",
    "Ein Satz mit Umlauten: größer, schöner, früher.",
]
SAME = 0.98
"""int8 activations are quantised over the batch: .996 was measured for sentences, .985 for a single letter."""

# One instance for all tests: loading 34 MB again would test nothing more.
MODELS = {"hashing": HashingEmbedder(), "onnx": OnnxEmbedder(threads=1), "openvino": OpenVinoEmbedder(threads=1)}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


def test_vectors_are_unit_float32_rows_in_order(model):
    vectors = model.embed(TEXTS, "passage")
    assert vectors.shape == (len(TEXTS), model.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


def test_no_texts_give_no_rows(model):
    assert model.embed([], "passage").shape == (0, model.dimension)
    assert model.lengths([]) == []


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
    short, long, longest = model.lengths(["one word", "word " * 600, "word " * 200_000])
    assert 2 <= short < 10
    assert 600 <= long < 610
    assert longest > model.max_tokens


def test_a_megabyte_of_long_words_is_measured_and_cut_as_any_text_is(model):
    """Only the head of a long text is tokenised if that is over the limit; long words may be fewer there."""
    long_words = " ".join("x" * HEAD * 100 for _ in range(600))
    assert model.lengths([long_words])[0] >= 600
    assert model.lengths(["x" * 1_000_000])[0] < 10


def test_a_text_over_the_limit_is_cut_to_it_and_still_has_a_unit_vector(model):
    cut, other = model.embed(["word " * 2000 + "tail", "word " * 2000 + "something else"], "passage")
    assert cut @ other > SAME


def test_the_fingerprint_names_the_model_and_never_changes_between_instances(model):
    assert type(model)().fingerprint == model.fingerprint
    assert model.name in model.fingerprint
    assert len({one.fingerprint for one in MODELS.values()}) == len(MODELS)


def test_an_engine_that_quantises_by_row_gives_a_text_nearly_the_same_vector_in_any_batch():
    model = MODELS["openvino"]
    together = model.embed(TEXTS, "passage")
    alone = np.vstack([model.embed([text], "passage") for text in TEXTS])
    assert (np.einsum("ij,ij->i", together, alone) > 0.999).all()


def test_engines_agree_on_the_same_weights():
    rows = [MODELS[name].embed(TEXTS, "passage") for name in ("onnx", "openvino")]
    assert (np.einsum("ij,ij->i", *rows) > SAME).all()
