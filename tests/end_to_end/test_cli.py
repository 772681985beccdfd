"""The command line as users run it: real processes, real sockets, a real data folder."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading

import pytest

from ragworks.client import live_server

DEADLINE_S = 45.0
WARRANTY = "The battery of the Fox 2 has a warranty of two years from the day of purchase.\n"


def environment():
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAGWORKS_")}
    return plain | {"RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing"}


def run(folder, *arguments, code=0, **more):
    """(stdout, stderr) of one command, which must end with ``code`` and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "ragworks", *arguments],
        cwd=folder,
        env=environment() | more,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


class Served:
    """A `ragworks serve` process; its lines can be waited for."""

    def __init__(self, folder, *arguments, **more):
        command = [sys.executable, "-m", "ragworks", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment() | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = self.wait_for("ragworks listens on ").split(" on ")[1].split(",")[0]

    def wait_for(self, text):
        while True:
            line = self._queue.get(timeout=DEADLINE_S)
            assert line is not None, "the server ended:\n" + "".join(self.lines)
            if text in line:
                return line

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        self.process.stdout.close()
        return code

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self._queue.put(line)
        self._queue.put(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    docs = place / "docs"
    docs.mkdir()
    (docs / "warranty.md").write_text(f"# Fox 2\n\n{WARRANTY}")
    (docs / "delivery.txt").write_text("Orders that are placed before noon leave the warehouse on the same day.\n")
    (docs / "noise.pdf").write_bytes(b"%PDF-1.7 broken")
    return place


@pytest.fixture(scope="module")
def served(folder):
    """A server that has taken in ``docs``."""
    server = Served(folder, "docs")
    try:
        server.wait_for("ingested docs: 2 of 3 documents are in")
        yield server
    finally:
        assert server.stop() == 0, "".join(server.lines)
        assert not (folder / ".ragworks" / "server.json").exists()


@pytest.fixture
def empty(tmp_path):
    return tmp_path


def found(*printed):
    return json.loads(printed[0])


def test_serve_names_each_document_that_failed_and_why(served):
    assert any("failed: noise.pdf: corrupt_document" in line for line in served.lines)


def test_a_command_finds_the_running_server_of_the_data_folder(served, folder):
    assert found(*run(folder, "status", "--json"))["where"] == served.url


def test_an_answer_is_printed_with_citations_that_resolve(served, folder):
    out, _ = run(folder, "ask", "How long is the warranty of the battery?")
    assert "two years" in out
    assert "[1] warranty.md" in out


def test_an_answer_as_json_quotes_the_text_that_its_offsets_point_to(served, folder):
    answer = found(*run(folder, "ask", "How long is the warranty of the battery?", "--json"))
    cited = answer["citations"][0]
    text = (folder / "docs" / cited["document_id"]).read_text()
    assert text[cited["start"] : cited["end"]] == cited["quote"]


def test_search_by_address_works_from_any_folder(served, empty):
    hits = found(*run(empty, "search", "warehouse orders", "--url", served.url, "--json"))["results"]
    assert hits[0]["document_id"] == "delivery.txt"


def test_ingesting_again_finds_everything_unchanged(served, folder):
    summary = found(*run(folder, "ingest", "docs", "--json", code=1))
    assert summary["file_counts"]["unchanged"] == 2
    assert [(one["name"], one["code"]) for one in summary["failed"]] == [("noise.pdf", "corrupt_document")]


def test_jobs_say_what_failed_and_why(served, folder):
    job_id = found(*run(folder, "jobs", "--json"))["data"][-1]["id"]
    assert "corrupt_document" in run(folder, "jobs", job_id)[0]
    assert "job_not_found" in run(folder, "jobs", "nope", code=1)[1]


def test_awkward_file_names_survive_the_journey(served, folder):
    place = folder / "odd"
    place.mkdir()
    names = ["ü ber 100%.md", 'say "hi".md', "semi;colon=a&b.md", "back\\slash.md", "日本.md"]
    for name in names:
        (place / name).write_text(f"A note that is called {name}.\n")
    run(folder, "ingest", "odd", "-c", "odd", "--json")
    listed = {one["id"] for one in found(*run(folder, "documents", "list", "-c", "odd", "--json"))["data"]}
    assert listed == {name.replace("\\", "/") for name in names}
    run(folder, "documents", "delete", *listed, "-c", "odd")
    assert found(*run(folder, "documents", "list", "-c", "odd", "--json"))["data"] == []


def test_doctor_finds_nothing_to_mend(served, folder):
    assert found(*run(folder, "doctor", "--json"))["healthy"] is True


def test_a_second_server_on_the_folder_is_refused_in_one_line(served, folder):
    _, err = run(folder, "serve", "--port", "0", code=1)
    assert "data_folder_locked: " in err
    assert served.url in err


def test_a_port_in_use_is_refused_in_one_line(empty):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        _, err = run(empty, "serve", "--port", str(taken.getsockname()[1]), code=1)
    assert "port_in_use: " in err
    assert "--port" in err


def test_without_a_server_a_command_opens_the_folder_itself(empty):
    (empty / "a.md").write_text(WARRANTY)
    (empty / ".ragworks").mkdir()
    (empty / ".ragworks" / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    assert "1 of 1 documents are in" in run(empty, "ingest", "a.md")[0]
    out, err = run(empty, "ask", "How long is the warranty of the battery?")
    assert "[1] a.md" in out
    assert err == ""
    assert found(*run(empty, "doctor", "--json"))["documents"] == 1
    assert ".ragworks: no server runs, opened here for this look: ready" in run(empty, "status")[0]


def test_ctrl_c_ends_the_server_in_good_order(empty):
    server = Served(empty)
    assert server.stop(signal.SIGINT) == 0, "".join(server.lines)
    assert not (empty / ".ragworks" / "server.json").exists()


async def test_a_server_that_was_killed_is_not_found_and_does_not_block_the_folder(empty):
    server = Served(empty)
    server.stop(signal.SIGKILL)
    assert (empty / ".ragworks" / "server.json").exists()
    assert await live_server(str(empty / ".ragworks")) is None
    run(empty, "doctor")


def test_eval_scores_a_set_and_finds_it_unchanged_the_second_time(empty):
    place = empty / "tiny"
    place.mkdir()
    texts = {"d1": WARRANTY, "d2": "Orders leave the warehouse on the same day.", "d3": ""}
    corpus = [{"_id": name, "title": name, "text": text} for name, text in texts.items()]
    (place / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (place / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "battery warranty", "history": ["user: hi"]}))
    (place / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    first = found(*run(empty, "eval", "tiny", "--data", "kept", "--json"))
    assert first["mean"] == {"ndcg_at_10": 1, "recall_at_10": 1, "recall_at_100": 1, "mrr_at_10": 1}
    run(empty, "eval", "tiny", "--data", "kept")
    jobs = found(*run(empty, "jobs", "--data", "kept", "--json"))["data"]
    newest = found(*run(empty, "jobs", jobs[0]["id"], "--data", "kept", "--json"))
    assert len(jobs) == 2
    assert all(one["unchanged"] for one in newest["documents"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ingest", "missing"], 2, "missing"),
        (["serve", "missing"], 2, "missing"),
        (["search", "x"], 1, "there is no data folder ./.ragworks"),
        (["search", "x", "--url", "http://127.0.0.1:9"], 1, "server_unreachable: the server at http://127.0.0.1:9"),
        (["status", "--config", "none.toml"], 2, "there is no configuration file none.toml"),
        (["eval", "."], 1, "is not a BEIR folder"),
    ],
)
def test_what_a_user_can_get_wrong_is_told_in_words(empty, arguments, code, message):
    assert message in run(empty, *arguments, code=code)[1]


def test_an_unknown_setting_is_refused_by_serve(empty):
    _, err = run(empty, "serve", code=2, RAGWORKS_SERVER__PROT="1")
    assert "unknown setting server.prot; did you mean server.port?" in err
