"""How fast texts become vectors, beside the bare model and fastembed; what a question waits; what the cache saves.

    python benchmarks/embedding.py BEIR_DIR [--traces CACHE_TRACE_DIR] [--rounds 5] [--texts 256] [--json]

BEIR_DIR holds ``corpus.jsonl`` (_id, title, text) and ``queries.jsonl`` (_id, text): three texts in four are documents
cut to 256 tokens, the fourth is a question. Every contender runs in a process of its own with the same file, the same
texts and two threads; they take turns round by round. ``ceiling`` is a bare ONNX Runtime loop over perfectly sorted
batches. fastembed runs with its defaults, and only if it is installed; OpenVINO likewise. Exit code 1 if ragworks is
below 95 % of the ceiling or, where fastembed runs, below 1.4 times it, or takes 600 MB. CPU-seconds forgive other
programs on the same cores, but not the cache that they take; compare the contenders of one run only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from embedding_contenders import CONTENDERS
from tokenizers import Tokenizer

from ragworks.bench.machine import commit, machine
from ragworks.models.carried import BGE_SMALL_EN, locate

HERE = Path(__file__).parent
MAX_TOKENS = 256
NEEDS = {"ragworks openvino": "openvino", "fastembed": "fastembed"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=("throughput", "latency", "cache"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    wanted = set(given.only or ("throughput", "latency", "cache"))
    found: dict[str, Any] = {"machine": machine(), "commit": commit(), "threads": given.threads, "texts": given.texts}
    with tempfile.TemporaryDirectory(prefix="ragworks-embedding-") as folder:
        documents, questions = read(given.dataset)
        mixed, asked = Path(folder, "mixed.json"), Path(folder, "questions.json")
        share = given.texts // 4
        texts = [*documents[: given.texts - share], *questions[:share]]
        random.Random(1).shuffle(texts)
        mixed.write_text(json.dumps(texts))
        asked.write_text(json.dumps(questions[-given.questions :]))
        if "throughput" in wanted:
            found["throughput"] = throughput(mixed, given.texts, given.threads, given.rounds)
        if "latency" in wanted:
            how = mixed, asked, given.threads, given.rounds, "onnxruntime"
            found["latency"] = {one: script("embedding_latency", *how, one) for one in ("inline", "process")}
        if "cache" in wanted:
            few = Path(folder, "few.json")
            few.write_text(json.dumps(documents[:60]))
            found["cache"] = script("embedding_cache", few, *sorted(given.traces.glob("*.txt") if given.traces else ()))
    print(json.dumps(found, indent=1) if given.json else table(found))
    sys.exit(0 if goals(found.get("throughput", [])) else 1)


def read(dataset: Path) -> tuple[list[str], list[str]]:
    """Documents cut to MAX_TOKENS, and questions, each shuffled."""
    tokenizer = Tokenizer.from_file(str(locate(BGE_SMALL_EN).tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    rng, texts = random.Random(0), []
    rows = [json.loads(line) for line in (dataset / "corpus.jsonl").read_text("utf-8").splitlines()]
    for row in rng.sample(rows, min(2000, len(rows))):
        text = f"{row['title']} {row['text']}"
        texts.append(text[: tokenizer.encode(text).offsets[-2][1]])
    questions = [json.loads(line)["text"] for line in (dataset / "queries.jsonl").read_text("utf-8").splitlines()]
    rng.shuffle(questions)
    return texts, questions


def throughput(texts: Path, count: int, threads: int, rounds: int) -> list[dict[str, Any]]:
    names = [name for name in CONTENDERS if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]
    with ExitStack() as stack:
        command = [sys.executable, str(HERE / "embedding_contenders.py")]
        processes = {
            name: stack.enter_context(
                subprocess.Popen(
                    [*command, name, str(texts), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for name in names
        }
        starts = {name: json.loads(process.stdout.readline()) for name, process in processes.items()}
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for at in range(rounds):
            for name in names[at % len(names) :] + names[: at % len(names)]:
                processes[name].stdin.write("round\n")
                processes[name].stdin.flush()
                seen[name].append(json.loads(processes[name].stdout.readline()))
        ends = {name: json.loads(process.communicate()[0]) for name, process in processes.items()}
    reference = np.asarray(ends["ceiling"].pop("vectors"))
    rows = []
    for name in names:
        vectors = np.asarray(ends[name].pop("vectors", reference))
        per_cpu = [count / one["cpu_s"] for one in seen[name]]
        ratios = [one / (count / base["cpu_s"]) for one, base in zip(per_cpu, seen["ceiling"], strict=True)]
        rows.append({
            "name": name, "texts_per_cpu_s": statistics.median(per_cpu), "of_ceiling": statistics.median(ratios),
            "of_ceiling_each": ratios, "texts_per_s": statistics.median(count / one["wall_s"] for one in seen[name]),
            "cosine_to_ceiling_min": float(np.einsum("ij,ij->i", vectors, reference).min()),
            **starts[name], **ends[name],
        })  # fmt: skip
    return rows


def script(name: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def goals(rows: list[dict[str, Any]]) -> bool:
    of = {row["name"]: row for row in rows}
    if not of:
        return True
    ours, peer = of["ragworks"], of.get("fastembed")
    faster = peer is None or ours["texts_per_cpu_s"] >= 1.4 * peer["texts_per_cpu_s"]
    return faster and ours["of_ceiling"] >= 0.95 and ours["peak_mb"] < 600


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, {found['threads']} threads"]
    if rows := found.get("throughput"):
        lines += [
            "",
            "| | texts per CPU-second | of the ceiling | texts per second | MB at rest | MB at most | start, CPU-s |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['name']} | {row['texts_per_cpu_s']:.1f} | {row['of_ceiling']:.2f} | {row['texts_per_s']:.1f} "
            f"| {row['rest_mb']:.0f} | {row['peak_mb']:.0f} | {row['start_cpu_s']:.2f} |"
            for row in rows
        ]
    if latency := found.get("latency"):
        lines += ["", "| model | ms | n | p50 | p99 | p99, 95 % interval |", "|---|---|---:|---:|---:|---:|"]
        for name, one in [(f"{where} | {name}", one) for where, rows in latency.items() for name, one in rows.items()]:
            interval = f"{one['p99_low']:.1f} to {one['p99_high']:.1f}"
            lines.append(f"| {name} | {one['n']} | {one['p50']:.1f} | {one['p99']:.1f} | {interval} |")
    if cache := found.get("cache"):
        lines += ["", " · ".join(f"{key} {value:.0f}" for key, value in cache["entry"].items())]
        for rows in (cache["hit_rates"], cache["ingest"]):
            lines += ["", *listed(rows)] if rows else []
    return "\n".join(lines)


def listed(rows: list[dict[str, Any]]) -> list[str]:
    cells = [[f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    head = list(rows[0])
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


if __name__ == "__main__":
    main()
