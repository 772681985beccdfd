"""Reading recorded traffic, and what is said of a file that holds none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragworks.errors import InvalidInput
from ragworks.simulator.traces import Rates, Requests, read


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    return file


def test_requests_come_in_order_of_their_time(tmp_path: Path) -> None:
    found = read(written(tmp_path, "t, in,out,more\n2,10,20,x\n1,30,40,y\n"))
    assert isinstance(found, Requests)
    assert (found.t.tolist(), found.tokens_in.tolist(), found.tokens_out.tolist()) == ([1, 2], [30, 10], [40, 20])


def test_rates_are_told_from_requests_by_their_columns(tmp_path: Path) -> None:
    found = read(written(tmp_path, "t,req_per_s\n0,1.5\n600,0\n"))
    assert isinstance(found, Rates)
    assert found.per_s.tolist() == [1.5, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "expected the columns t,in,out or t,req_per_s, found a,b"),
        ("t,in,out\n", "holds no rows"),
        ("t,in,out\n1,2\n", "line 2: expected t,in,out as numbers, found 1,2,None"),
        ("t,in,out\n1,2,3\n1,x,3\n", "line 3: expected t,in,out as numbers, found 1,x,3"),
        ("t,req_per_s\n1,-3\n", "line 2"),
        ("t,req_per_s\n1,nan\n", "line 2"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.csv cannot be read"):
        read(tmp_path / "nowhere.csv")
