import subprocess
import sys
import threading

import numpy as np
import onnxruntime
import pytest

from ragworks.errors import ModelMissing
from ragworks.models import onnx_weights
from ragworks.models.carried import ModelFiles
from ragworks.models.onnx_weights import OnnxEmbedder, OnnxScorer


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Every session that is opened, with its arguments."""
    opened: list[tuple[object, ...]] = []

    def open_session(*arguments, **options):
        opened.append(arguments)
        return object()

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return opened


def test_nothing_is_read_before_the_first_use(sessions):
    OnnxEmbedder()
    OnnxScorer()
    assert sessions == []


def test_threads_that_come_together_read_the_weights_once(sessions):
    embedder, gate = OnnxEmbedder(), threading.Barrier(8)

    def load() -> None:
        gate.wait()
        embedder.load()

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 1


def test_threads_come_from_the_settings_and_never_spin(sessions):
    OnnxEmbedder(threads=3).load()
    options = sessions[0][1]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_damaged_file_is_a_missing_model(monkeypatch, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"not a model")
    files = ModelFiles(tmp_path / "model.onnx", tmp_path / "tokenizer.json")
    monkeypatch.setattr(onnx_weights, "locate", lambda model: files)
    with pytest.raises(ModelMissing, match="cannot be read as bge-small-en"):
        OnnxEmbedder().load()


def test_the_question_prefix_of_the_card_is_all_that_tells_questions_apart():
    embedder = OnnxEmbedder(threads=1)
    question = embedder.embed(["what is a lease"], "question")
    spelled_out = embedder.embed([onnx_weights.QUESTION_PREFIX + "what is a lease"], "passage")
    assert np.allclose(question, spelled_out)


def test_the_vector_index_may_be_imported_before_the_models():
    """usearch 2.26 loads its kernels into the global symbol space; ONNX Runtime 1.32 imported after it crashed."""
    code = "import ragworks.storage.vector_index, ragworks.models.onnx_weights"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0
