"""What is left, in words."""

from __future__ import annotations

import pytest

from ragworks.cli.progress import left


def told(expected: float, low: float, high: float) -> dict[str, object]:
    interval = {"low": low, "high": high, "level": 0.8}
    return {"estimated_completion_time": expected, "estimated_completion_interval": interval}


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (told(40.2, 25.1, 70.0), "about 40 s left (25 to 70)"),
        (told(0.53, 0.04, 2.11), "about 0.5 s left (0.0 to 2.1)"),
        (told(1800, 900, 7200), "about 30 min left (15 to 120)"),
        (told(9000, 7200, 36000), "about 2.5 h left (2.0 to 10)"),
    ],
)
def test_what_is_left_is_said_in_a_unit_that_fits(job: dict[str, object], words: str) -> None:
    assert left([job]) == words


def test_the_job_that_ends_last_counts_and_one_that_does_not_tell_does_not() -> None:
    ended = {"estimated_completion_time": None, "estimated_completion_interval": None}
    assert left([told(40, 25, 70), told(50, 20, 60), ended]) == "about 50 s left (25 to 70)"
    assert left([ended]) == left([{}]) == left([]) == ""
