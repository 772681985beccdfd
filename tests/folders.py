"""Model folders as users bring them: a tiny ONNX graph that looks words up, and the files that stand beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

TEXT = """the lease is renewed while worker makes progress bananas ripen faster in a paper bag its as long it x ein satz
mit umlauten word tail something else one two three query passage"""
WORDS = TEXT.split()
DIMENSION = 64
FILES = {"config.json": {"max_position_embeddings": 512, "model_type": "bert"}}


def model_folder(
    place: Path,
    *,
    files: Mapping[str, Any] = FILES,
    inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    outputs: Sequence[str] = ("last_hidden_state",),
    weights: str = "model.onnx",
    integers: int = TensorProto.INT64,
    seed: int = 0,
    outside: str | None = None,
) -> str:
    """``outputs``: pooler_output and sentence_embedding are one vector per text, any other is one per token.

    ``outside`` names a file beside the graph that holds its tensors.
    """
    (place / weights).parent.mkdir(parents=True, exist_ok=True)
    location = {"save_as_external_data": True, "location": outside, "size_threshold": 0} if outside else {}
    onnx.save(_graph(inputs, outputs, integers, seed), str(place / weights), **location)
    _tokenizer().save(str(place / "tokenizer.json"))
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(place)


def table(seed: int = 0) -> np.ndarray:
    """The vector of each token, by its id: words are at right angles; the signs without meaning weigh little."""
    rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIMENSION, DIMENSION)))[0][: len(WORDS) + 4]
    rows[:4] *= 0.1
    return rows.astype(np.float32)


def ids(text: str) -> list[int]:
    return _tokenizer().encode(text).ids


def _tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return tokenizer


def _graph(inputs: Sequence[str], outputs: Sequence[str], integers: int, seed: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["tokens"])]
    for name in inputs[1:]:  # used, but without an effect
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_number"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", [f"{name}_number"], [f"{name}_unused"], keepdims=0),
        ]
    named = []
    for name in outputs:
        single = name in ("pooler_output", "sentence_embedding")
        one = helper.make_node("ReduceMax", ["tokens"], [name], axes=[1], keepdims=0)
        nodes.append(one if single else helper.make_node("Identity", ["tokens"], [name]))
        shape = ["batch", DIMENSION] if single else ["batch", "tokens", DIMENSION]
        named.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    taken = [helper.make_tensor_value_info(name, integers, ["batch", "width"]) for name in inputs]
    graph = helper.make_graph(nodes, "words", taken, named, [numpy_helper.from_array(table(seed), "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
