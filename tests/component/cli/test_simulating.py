"""``ragworks simulate balance`` as it is typed: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragworks.cli import main
from ragworks.policies.balancing import STRATEGIES

FIELDS = ["strategy", "mean_s", "p50_s", "p95_s", "p99_s", "error_rate", "mean_ratio", "p99_ratio", "knows"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    rows = [
        f"{place * 0.7 + (place % 3) * 0.2},{100 + place * 37 % 3000},{1 + place * 91 % 700}" for place in range(600)
    ]
    file.write_text("t,in,out\n" + "\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize("case", ["steady", "long", "blackhole"])
def test_json_is_one_row_a_strategy(trace, case, capsys) -> None:
    assert main(["simulate", "balance", "--trace", str(trace), "--case", case, "--balancers", "4", "--json"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    assert printed.err == ""
    assert [row["strategy"] for row in rows] == list(STRATEGIES)
    assert all(list(row) == FIELDS for row in rows)
    assert all(row["mean_ratio"] > 0.9 and 0 <= row["error_rate"] < 0.2 for row in rows)


def test_the_same_seed_prints_the_same(trace, capsys) -> None:
    printed = []
    for seed in ("1", "1", "2"):
        main(["simulate", "balance", "--trace", str(trace), "--strategies", "p2c", "--seed", seed, "--json"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_the_table_stands_beside_the_oracle(trace, capsys) -> None:
    command = ["simulate", "balance", "--trace", str(trace), "--profile", "embed", "--strategies", "adaptive, random"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", "oracle", "adaptive", "random"]


def test_ejecting_can_be_left_out(trace, capsys) -> None:
    errors = []
    for option in ("--ejecting", "--no-ejecting"):
        command = ["simulate", "balance", "--trace", str(trace), "--case", "blackhole"]
        main([*command, "--strategies", "least_connections", option, "--json"])
        errors.append(json.loads(capsys.readouterr().out)[0]["error_rate"])
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategies", "least_conections"], "unknown strategy least_conections; did you mean least_connections?"),
        (["--strategies", "zzz"], "unknown strategy zzz; known are all, round_robin"),
        (["--strategies", ","], "no strategy given"),
        (["--rho", "1"], "must lie between 0 and 1, found 1"),
        (["--rho", "nan"], "must lie between 0 and 1, found nan"),
        (["--balancers", "0"], "balancers"),
        (["--profile", "other"], "'generate', 'embed'"),
        (["--case", "other"], "'steady', 'long', 'blackhole'"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(trace, options, said, capsys) -> None:
    assert main(["simulate", "balance", "--trace", str(trace), *options]) == (1 if "--rho" in options else 2)
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read as a trace"),
        ("a,b\n1,2\n", "expected the columns t,in,out"),
        ("t,req_per_s\n0,5\n", "holds rates; balancing needs requests, with the columns t,in,out"),
        ("t,in,out\n1,2,x\n", "line 2"),
        ("t,in,out\n1,2,3\n", "all requests of the trace come at the same second"),
    ],
)
def test_what_is_no_trace_of_requests_is_refused(tmp_path, content, said, capsys) -> None:
    file = tmp_path / "trace.csv"
    if content is not None:
        file.write_text(content)
    assert main(["simulate", "balance", "--trace", str(file)]) == 1
    assert said in capsys.readouterr().err
