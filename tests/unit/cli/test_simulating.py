"""``ragworks simulate scale`` on a trace made here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ragworks.cli import main

FIELDS = ["policy", "wait_over_1s_share", "replica_hours_ratio", "actions", "peak_replicas"]


@pytest.fixture
def requests(tmp_path):
    """Ten minutes of some two requests a second, a burst in the middle."""
    rng = np.random.default_rng(0)
    t = np.sort(np.concatenate([rng.uniform(0, 600, 1200), rng.uniform(280, 320, 300)]))
    file = tmp_path / "requests.csv"
    file.write_text("t,in,out\n" + "".join(f"{at:.3f},500,{rng.integers(20, 200)}\n" for at in t))
    return file


@pytest.fixture
def rates(tmp_path):
    file = tmp_path / "rates.csv"
    file.write_text("t,req_per_s\n" + "".join(f"{600 * bin},{5 + bin}\n" for bin in range(24)))
    return file


def printed(capsys, *arguments):
    assert main(["simulate", "scale", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failed(capsys, *arguments):
    code = main(["simulate", "scale", *map(str, arguments)])
    return code, " ".join(capsys.readouterr().err.split())


def test_each_policy_has_its_row(capsys, requests):
    rows = printed(capsys, "--trace", requests)
    assert [row["policy"] for row in rows] == ["threshold", "target", "predictive"]
    for row in rows:
        assert list(row) == FIELDS
        assert 0 <= row["wait_over_1s_share"] <= 1
        assert row["replica_hours_ratio"] > 0
        assert row["peak_replicas"] >= 1


def test_the_table_names_the_oracle_too(capsys, requests):
    assert main(["simulate", "scale", "--trace", str(requests), "--policies", "target"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1500 requests in 600 s")
    assert [line.split()[0] for line in lines[1:]] == ["policy", "target", "oracle"]


def test_a_policy_is_told_its_settings(capsys, requests):
    def hours(*options):
        return printed(capsys, "--trace", requests, "--policies", "target", *options)[0]["replica_hours_ratio"]

    assert hours("--set", "target.utilisation=0.3", "--set", "target.calm_s=60") > 1.3 * hours(
        "--set", "target.calm_s=60"
    )
    assert printed(capsys, "--trace", requests, "--set", "max_instances=2", "--policies", "threshold,target") != []


def test_rates_are_drawn_by_a_seed(capsys, rates, requests):
    def drawn(seed, window="1h:2h"):
        return printed(
            capsys, "--trace", rates, "--tokens", requests, "--policies", "target", "--window", window, "--seed", seed
        )

    assert drawn(1) == drawn(1, "3600:7200") != drawn(2)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--policies", "target,magic"], 2, "unknown policy magic; known are all, threshold, target, predictive"),
        (["--set", "target.utilization=1"], 2, "did you mean 'target.utilisation'"),
        (["--set", "target.utilisation=2"], 2, "target.utilisation must be above 0, 1 at most; found 2"),
        (["--set", "startup_s=1"], 2, "startup_s is the option --startup-s here"),
        (["--set", "cooldown"], 2, "expected NAME=VALUE, found 'cooldown'"),
        (["--set", "min_instances=200"], 2, "max_instances must be 200 (min_instances) or more; found 100"),
        (["--slots", "0"], 2, "--slots"),
        (["--startup-s", "-1"], 2, "--startup-s"),
        (["--startup-s", "nan"], 2, "--startup-s"),
        (["--startup-s", "inf"], 2, "must be a number, found inf"),
        (["--cv", "nan"], 2, "must be a number above 0, found nan"),
        (["--cv", "0"], 2, "must be a number above 0, found 0"),
        (["--window", "9:3"], 2, "expected START:END with START before END"),
        (["--window", "9"], 2, "found '9'"),
        (["--window", "8000:9000"], 1, "the window 8000:9000 holds no request"),
        (["--window", "0:100"], 1, "more than 120 s"),
        (["--tokens", "{requests}"], 1, "holds requests with their tokens; leave out --tokens"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(capsys, requests, options, code, said):
    found, message = failed(capsys, "--trace", requests, *(one.format(requests=requests) for one in options))
    assert (found, said in message) == (code, True), message


def test_rates_want_tokens_and_tokens_are_requests(capsys, rates, tmp_path):
    assert "give --tokens FILE" in failed(capsys, "--trace", rates)[1]
    assert "--tokens wants requests" in failed(capsys, "--trace", rates, "--tokens", rates)[1]
    assert "cannot be read" in failed(capsys, "--trace", tmp_path / "nowhere.csv")[1]
