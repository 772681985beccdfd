import hashlib
import subprocess
import sys

import numpy as np

from ragworks.models.hashing import HashingEmbedder

TEXT = "Vectors must not depend on the process that makes them."


def test_texts_that_share_words_are_closer_than_texts_that_do_not():
    one, near, far = HashingEmbedder().embed(
        ["the cat sat on the mat", "a cat on a mat", "quarterly revenue fell sharply"], "passage"
    )
    assert one @ near > 0.4 > 0.2 > one @ far


def test_the_same_text_gets_the_same_vector_in_another_process():
    """Python's own hash is salted per process; a cache keyed by such vectors would never hit after a restart."""
    code = (
        "import hashlib; from ragworks.models.hashing import HashingEmbedder as H;"
        f"print(hashlib.sha256(H().embed([{TEXT!r}], 'passage').tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == hashlib.sha256(HashingEmbedder().embed([TEXT], "passage").tobytes()).hexdigest()


def test_a_text_without_words_still_has_a_unit_vector():
    assert np.allclose(np.linalg.norm(HashingEmbedder().embed(["", "...", "\ud800"], "passage"), axis=1), 1.0)
