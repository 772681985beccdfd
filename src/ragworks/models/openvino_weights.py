"""The bundled embedder run by OpenVINO: the same int8 weights, activations quantised in groups of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from ragworks.models.onnx_weights import Feed, OnnxEmbedder

GROUP = "128"
"""Activations that share a scale. One row shares none with another, so a text's vector hardly depends on its batch, and
is near to that of float arithmetic (cosine .9996 at least; ONNX Runtime, which quantises over the batch: .995)."""

_LAYERS, _HEADS, _WIDTH = 12, 12, 384
_LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)

Weights = Mapping[str, NDArray[Any]]


class OpenVinoEmbedder(OnnxEmbedder):
    """bge-small-en-v1.5 as OnnxEmbedder has it, somewhat faster and much nearer to float arithmetic.

    Its vectors are others (cosine .998), so it has a fingerprint of its own: a collection keeps to one engine.
    """

    fingerprint = f"{OnnxEmbedder.fingerprint}:openvino-{GROUP}"

    def __init__(self, threads: int = 0, batch_tokens: int = 512) -> None:
        super().__init__(threads, batch_tokens, openvino_engine)


def openvino_engine(weights: Path, threads: int) -> Callable[[Feed], NDArray[np.float32]]:
    """An Engine for the bundled embedder alone: it knows the names inside that file."""
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the cores are shared with those who read documents
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
    }
    request = core.compile_model(_bert(_constants(core, weights)), "CPU", settings).create_infer_request()

    def run(feed: Feed) -> NDArray[np.float32]:
        output: NDArray[np.float32] = request.infer([feed["input_ids"], feed["attention_mask"]])[0]
        return output

    return run


def _constants(core: Any, weights: Path) -> Weights:
    """Every constant of the file by name, and the quantised matrices, which the exporter numbered, by their layer."""
    found = {
        node.get_friendly_name(): node.data for node in core.read_model(weights).get_ops()
        if node.get_type_name() == "Constant"
    }  # fmt: skip
    numbered = sorted(name[: -len("_scale")] for name in found if name.startswith("onnx::MatMul_") and "_scale" in name)
    numbered.sort(key=lambda name: int(name.rsplit("_", 1)[1]))
    places = [f"encoder.layer.{layer}.{part}" for layer in range(_LAYERS) for part in _LINEAR]
    for place, name in zip(places, numbered, strict=True):
        found[f"{place}.weight"], found[f"{place}.scale"] = found[f"{name}_quantized"], found[f"{name}_scale"]
    return found


def _bert(weights: Weights) -> Any:
    """The network of the carried file, of which the last layer is computed for the first token alone."""
    ids = ops.parameter([-1, -1], np.int64, "input_ids")
    attended = ops.parameter([-1, -1], np.int64, "attention_mask")
    mask = ops.unsqueeze(ops.convert(attended, "boolean"), [1, 2])
    hidden = _embedded(weights, ids)
    for layer in range(_LAYERS):
        hidden = _layer(weights, f"encoder.layer.{layer}.", hidden, mask, first_only=layer == _LAYERS - 1)
    return openvino.Model([ops.squeeze(hidden, [1])], [ids, attended], "bge-small-en")


def _embedded(weights: Weights, ids: Any) -> Any:
    def rows(name: str, places: Any) -> Any:
        at = f"embeddings.{name}_embeddings.weight_"
        taken = ops.convert(ops.gather(ops.constant(weights[f"{at}quantized"]), places, zero), "f32")
        shift = ops.constant(weights[f"{at}zero_point"].astype(np.float32))
        return ops.multiply(ops.subtract(taken, shift), ops.constant(weights[f"{at}scale"]))

    zero = ops.constant(np.int64(0))
    width = ops.gather(ops.shape_of(ids), ops.constant(np.int64(1)), zero)
    places = ops.range(zero, width, ops.constant(np.int64(1)), "i64")
    found = ops.add(ops.add(rows("word", ids), rows("token_type", zero)), rows("position", places))
    return _normalised(weights, "embeddings.LayerNorm", found)


def _layer(weights: Weights, at: str, hidden: Any, mask: Any, *, first_only: bool) -> Any:
    asking = ops.slice(hidden, [0], [1], [1], [1]) if first_only else hidden
    query, key, value = (
        ops.transpose(ops.reshape(_linear(weights, f"{at}attention.self.{name}", source), _SPLIT, True), [0, 2, 1, 3])
        for name, source in (("query", asking), ("key", hidden), ("value", hidden))
    )
    seen = ops.scaled_dot_product_attention(query, key, value, mask)
    joined = ops.reshape(ops.transpose(seen, [0, 2, 1, 3]), [0, 0, _WIDTH], True)
    spread = _linear(weights, f"{at}attention.output.dense", joined)
    attended = _normalised(weights, f"{at}attention.output.LayerNorm", ops.add(spread, asking))
    inner = ops.gelu(_linear(weights, f"{at}intermediate.dense", attended), "erf")
    return _normalised(
        weights, f"{at}output.LayerNorm", ops.add(_linear(weights, f"{at}output.dense", inner), attended)
    )


_SPLIT = [0, 0, _HEADS, _WIDTH // _HEADS]


def _linear(weights: Weights, at: str, source: Any) -> Any:
    """OpenVINO keeps the matrix as int8 when it is written as rows of one scale each."""
    rows = ops.constant(np.ascontiguousarray(weights[f"{at}.weight"].T))
    scales = ops.constant(weights[f"{at}.scale"].reshape(-1, 1))
    product = ops.matmul(source, ops.multiply(ops.convert(rows, "f32"), scales), False, True)
    return ops.add(product, ops.constant(weights[f"{at}.bias"]))


def _normalised(weights: Weights, at: str, source: Any) -> Any:
    even = ops.mvn(source, [-1], True, 1e-12, "inside_sqrt")
    return ops.add(ops.multiply(even, ops.constant(weights[f"{at}.weight"])), ops.constant(weights[f"{at}.bias"]))
