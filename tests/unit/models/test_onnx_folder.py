"""A model from a folder: what its files say is done, and what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from folders import DIMENSION, FILES, ids, model_folder, table
from ragworks.errors import ModelMissing
from ragworks.models.folder import passage_tokens
from ragworks.models.onnx_folder import FolderEmbedder, pooled

TEXT = "the lease is renewed"
PROMPTS = {"config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}}}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def pooling(mode: str) -> dict[str, Any]:
    return {"1_Pooling/config.json": {"word_embedding_dimension": DIMENSION, **_modes(mode)}}


def _modes(mode: str) -> dict[str, bool]:
    return {f"pooling_mode_{one}": one == mode for one in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, lambda rows: rows.mean(axis=0)),
        (pooling("mean_tokens"), lambda rows: rows.mean(axis=0)),
        (pooling("cls_token"), lambda rows: rows[0]),
        (pooling("max_tokens"), lambda rows: rows.max(axis=0)),
        (pooling("lasttoken"), lambda rows: rows[-1]),
        ({"1_Pooling/config.json": {"pooling_mode": "cls"}}, lambda rows: rows[0]),
    ],
)
def test_tokens_become_a_vector_as_the_folder_says_and_by_their_mean_if_it_says_nothing(tmp_path, files, wanted):
    """Beside a longer text, so that padding would show."""
    model = FolderEmbedder(model_folder(tmp_path, files=FILES | files), threads=1)
    found = model.embed([TEXT, TEXT * 3], "passage")[0]
    assert np.allclose(found, unit(wanted(table()[ids(TEXT)])), atol=1e-5)


@pytest.mark.parametrize("inputs", [("input_ids",), ("input_ids", "attention_mask")])
@pytest.mark.parametrize("integers", [TensorProto.INT32, TensorProto.INT64])
def test_a_graph_gets_the_inputs_that_it_takes_in_its_own_integers(tmp_path, inputs, integers):
    model = FolderEmbedder(model_folder(tmp_path, inputs=inputs, integers=integers), threads=1)
    assert np.allclose(model.embed([TEXT], "passage")[0], unit(table()[ids(TEXT)].mean(axis=0)), atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        (("pooler_output", "last_hidden_state"), lambda rows: rows.mean(axis=0)),
        (("last_hidden_state", "sentence_embedding"), lambda rows: rows.max(axis=0)),
        (("pooler_output", "anything"), lambda rows: rows.mean(axis=0)),
        (("pooler_output",), lambda rows: rows.max(axis=0)),
    ],
)
def test_the_right_one_of_several_outputs_is_used(tmp_path, outputs, wanted):
    model = FolderEmbedder(model_folder(tmp_path, outputs=outputs), threads=1)
    assert np.allclose(model.embed([TEXT], "passage")[0], unit(wanted(table()[ids(TEXT)])), atol=1e-5)


def test_the_prompts_of_the_folder_stand_before_questions_and_passages_unless_the_settings_name_others(tmp_path):
    folder = model_folder(tmp_path, files=FILES | PROMPTS)
    model, bare = FolderEmbedder(folder, threads=1), FolderEmbedder(model_folder(tmp_path / "bare"), threads=1)
    assert np.allclose(model.embed([TEXT], "question"), bare.embed([f"query: {TEXT}"], "question"))
    assert np.allclose(model.embed([TEXT], "passage"), bare.embed([f"passage: {TEXT}"], "passage"))
    other = FolderEmbedder(folder, {"question": "word ", "passage": ""}, threads=1)
    assert np.allclose(other.embed([TEXT], "question"), bare.embed([f"word {TEXT}"], "question"))
    assert np.allclose(other.embed([TEXT], "passage"), model.embed([TEXT], "passage"))


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 512),
        ({"config.json": {"max_position_embeddings": 40}}, 40),
        ({"config.json": {"max_position_embeddings": 42, "model_type": "xlm-roberta"}}, 40),
        ({"config.json": {"max_position_embeddings": 99}, "sentence_bert_config.json": {"max_seq_length": 40}}, 40),
        ({"tokenizer_config.json": {"model_max_length": 40}}, 40),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 512),
    ],
)
def test_texts_are_cut_where_the_strictest_file_says(tmp_path, files, limit):
    model = FolderEmbedder(model_folder(tmp_path, files=files), threads=1)
    assert model.max_tokens == limit
    assert model.lengths(["word " * (limit + 8)], "passage") == [limit + 10]
    cut, other = model.embed(["word " * limit + "tail", "word " * limit + "else"], "passage")
    assert np.allclose(cut, other)


def test_a_text_of_words_so_long_that_few_fit_its_head_is_measured_whole(tmp_path):
    model = FolderEmbedder(model_folder(tmp_path, files={"config.json": {"max_position_embeddings": 10}}), threads=1)
    assert model.lengths([" ".join(["y" * 200] * 12), "y" * 10_000], "passage") == [14, 3]


@pytest.mark.parametrize(("limit", "wanted", "given"), [(512, 384, 384), (256, 384, 240), (128, 64, 64)])
def test_passages_are_cut_so_that_the_model_reads_them_to_their_end(tmp_path, limit, wanted, given):
    folder = model_folder(tmp_path, files={"config.json": {"max_position_embeddings": limit}} | PROMPTS)
    assert passage_tokens(folder, wanted) == given
    assert FolderEmbedder(folder, threads=1).lengths(["word " * given], "passage")[0] <= limit


def test_a_folder_that_says_nothing_usable_leaves_the_size_of_passages_alone(tmp_path):
    write(tmp_path, "config.json")
    (tmp_path / "config.json").write_text("{")
    assert passage_tokens(str(tmp_path), 384) == 384


def test_what_a_prefix_pushes_over_the_limit_counts_as_too_long(tmp_path):
    files = {"config.json": {"max_position_embeddings": 10}, **PROMPTS}
    model = FolderEmbedder(model_folder(tmp_path, files=files), threads=1)
    # Two of the ends, two of the words and signs of each prompt.
    assert model.lengths(["word " * 6, "word " * 7], "passage") == [10, 11]
    assert model.lengths(["word " * 6, "word " * 7], "question") == [10, 11]


def test_a_fingerprint_is_of_weights_tokenizer_pooling_limit_and_prefixes_and_not_of_the_place(tmp_path):
    one = FolderEmbedder(model_folder(tmp_path / "a"), threads=1).fingerprint
    assert FolderEmbedder(model_folder(tmp_path / "b"), threads=1).fingerprint == one
    others = [
        FolderEmbedder(model_folder(tmp_path / "c", seed=1)),
        FolderEmbedder(model_folder(tmp_path / "d", files=FILES | pooling("cls_token"))),
        FolderEmbedder(model_folder(tmp_path / "e", files={"config.json": {"max_position_embeddings": 9}})),
        FolderEmbedder(model_folder(tmp_path / "f", files=FILES | PROMPTS)),
        FolderEmbedder(str(tmp_path / "a"), {"question": "query: "}),
        FolderEmbedder(str(tmp_path / "a"), {"passage": "query: "}),
    ]
    assert len({one, *(model.fingerprint for model in others)}) == 7


@pytest.mark.parametrize("outside", ["model.onnx_data", "model.onnx.data"])
def test_weights_in_a_file_beside_the_graph_are_part_of_the_fingerprint(tmp_path, outside):
    folders = [model_folder(tmp_path / str(seed), seed=seed, outside=outside) for seed in (0, 1)]
    assert (tmp_path / "0" / "model.onnx").read_bytes() == (tmp_path / "1" / "model.onnx").read_bytes()
    one, other = (FolderEmbedder(folder, threads=1) for folder in folders)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("weights", ["onnx/model.onnx", "model_quantized.onnx", "onnx/anything.onnx"])
def test_the_weights_are_found_where_exporters_put_them(tmp_path, weights):
    assert FolderEmbedder(model_folder(tmp_path, weights=weights), threads=1).dimension == DIMENSION


def write(place: Path, *names: str) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"{}")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "must hold model.onnx or onnx/model.onnx and tokenizer.json; found an empty folder"),
        (("config.json", "readme.txt"), "found config.json, readme.txt"),
        (("model.safetensors", "config.json"), "converting them takes torch.*optimum-cli export onnx --model"),
        (("pytorch_model.bin",), "optimum-cli export onnx --model"),
        (("a.onnx", "b.onnx"), "must hold one model.onnx, found a.onnx, b.onnx"),
        (("model.onnx", "vocab.txt"), "must hold tokenizer.json .*found model.onnx, vocab.txt"),
        (("model.onnx", "tokenizer.json"), "cannot be read as an ONNX model with its tokenizer"),
    ],
)
def test_a_folder_without_a_usable_model_is_refused_with_what_was_expected_and_found(tmp_path, names, said):
    write(tmp_path, *names)
    with pytest.raises(ModelMissing, match=said):
        FolderEmbedder(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelMissing, match="must be a folder that holds a model, found none at"):
        FolderEmbedder(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"inputs": ("input_ids", "pixel_values")}, "must take input_ids.*it takes input_ids, pixel_values"),
        ({"files": {"config.json": "{"}}, r"config\.json cannot be read as JSON"),
        (
            {"files": {"1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}},
            "must ask for one of .*found cls_token, mean_tokens",
        ),
        ({"files": {"1_Pooling/config.json": {"pooling_mode_weightedmean_tokens": True}}}, "found weightedmean_tokens"),
        (
            {"files": {"modules.json": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]}},
            "names steps after pooling",
        ),
    ],
)
def test_what_cannot_be_done_as_the_folder_asks_is_refused_and_not_guessed(tmp_path, made, said):
    with pytest.raises(ModelMissing, match=said):
        FolderEmbedder(model_folder(tmp_path, **made), threads=1)


def test_steps_after_pooling_are_welcome_in_the_graph(tmp_path):
    files = FILES | {"modules.json": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]}
    folder = model_folder(tmp_path, files=files, outputs=("token_embeddings", "sentence_embedding"))
    assert FolderEmbedder(folder, threads=1).dimension == DIMENSION


@pytest.mark.parametrize("how", ["cls", "mean", "max", "last"])
def test_padding_never_reaches_the_pooled_vector(how):
    rng = np.random.default_rng(0)
    tokens, mask = rng.normal(size=(2, 5, 3)).astype(np.float32), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    dirty = tokens.copy()
    dirty[0, 3:] = 1e6
    assert np.allclose(pooled(tokens, mask, how), pooled(dirty, mask, how))
    assert np.allclose(pooled(tokens[:1, :3], mask[:1, :3], how), pooled(tokens, mask, how)[:1])
