"""One embedder in a process of its own, told by its standard input when to embed; used by embedding.py.

    python benchmarks/embedding_contenders.py NAME TEXTS.json THREADS

Each line read starts a round over all texts and is answered by a line of figures; the end of the input by the last one.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
from tokenizers import Tokenizer

from ragworks.clock import SystemClock
from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.models.choosing import ENGINES
from ragworks.settings import EmbeddingsSettings
from ragworks.testing import LocalEmbeddings

CEILING_TOKENS = 512
Embed = Callable[[Sequence[str]], np.ndarray]


def ceiling(threads: int, runner: asyncio.Runner) -> Embed:
    """The loop that nothing in Python can beat with this file: all texts known, perfectly sorted, nothing checked."""
    files, options = locate(BGE_SMALL_EN), onnxruntime.SessionOptions()
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(files.weights), options, providers=["CPUExecutionProvider"])

    def embed(texts: Sequence[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch_fast(list(texts))
        order = sorted(range(len(texts)), key=lambda at: len(encoded[at].ids))
        out = np.zeros((len(texts), 384), np.float32)
        while order:
            rows = [order.pop()]  # the longest is left last, so it sets the width
            width = len(encoded[rows[0]].ids)
            while order and width * (len(rows) + 1) <= CEILING_TOKENS:
                rows.append(order.pop())
            ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
            for place, row in enumerate(rows):
                ids[place, : len(encoded[row].ids)] = encoded[row].ids
                mask[place, : len(encoded[row].ids)] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            first = session.run(None, feed)[0][:, 0]
            out[rows] = first / np.linalg.norm(first, axis=1, keepdims=True)
        return out

    return embed


def service(engine: str) -> Callable[[int, asyncio.Runner], Embed]:
    """EmbeddingsService as the server has it, without its memory, which would answer every round but the first."""

    def opened(threads: int, runner: asyncio.Runner) -> Embed:
        settings = EmbeddingsSettings(engine=engine, threads=threads, cache_enabled=False)
        made = LocalEmbeddings(settings, lambda: ENGINES[engine](threads), None, SystemClock())
        loop = (
            runner.get_loop()
        )  # Runner.run would format its result, all vectors of it, when it gives the signals back
        loop.run_until_complete(made.initialize())
        return lambda texts: np.vstack(list(loop.run_until_complete(made.embed_texts(texts)).embeddings))

    return opened


def fastembed(threads: int, runner: asyncio.Runner) -> Embed:
    """fastembed with its defaults on the same file."""
    from fastembed import TextEmbedding

    folder = Path(tempfile.mkdtemp(prefix="ragworks-fastembed-"))
    for file in locate(BGE_SMALL_EN).weights.parent.iterdir():
        (folder / file.name.replace("model.onnx", "model_optimized.onnx")).symlink_to(file)
    model = TextEmbedding("BAAI/bge-small-en-v1.5", specific_model_path=str(folder), threads=threads)
    return lambda texts: np.vstack(list(model.embed(list(texts))))


CONTENDERS: dict[str, Callable[[int, asyncio.Runner], Embed]] = {
    "ceiling": ceiling,
    "ragworks": service("onnxruntime"),
    "ragworks openvino": service("openvino"),
    "fastembed": fastembed,
}


def main() -> None:
    name, texts, threads = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")), int(sys.argv[3])
    with asyncio.Runner() as runner:
        began, cpu = time.perf_counter(), time.process_time()
        embed = CONTENDERS[name](threads, runner)
        first = embed(texts[:1])
        start = {"start_s": time.perf_counter() - began, "start_cpu_s": time.process_time() - cpu}
        print(json.dumps({**start, "rest_mb": psutil.Process().memory_info().rss / 1e6}), flush=True)
        for _ in sys.stdin:
            began, cpu = time.perf_counter(), time.process_time()
            first = embed(texts)
            print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began}), flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"peak_mb": peak, "vectors": first.astype(float).round(6).tolist()}), flush=True)


if __name__ == "__main__":
    main()
