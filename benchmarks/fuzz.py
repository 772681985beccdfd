"""Thousands of damaged files through the real worker pool: each indexed, refused with a reason, or fatal to a worker.

Usage: python benchmarks/fuzz.py --source DIR [--files 10000] [--seed 0] [--only N] [--workers 2] [--limit-s 20]
[--memory-mib 1024] [--keep DIR] [--json]. File N of a seed is the same on every run; `--only N` reads that one alone.
Counts what was indexed, refused by code, given up for time or memory, and what ended its worker (`--keep` stores those
files). Exit code 1 if anything else happened: an error that is no DocumentError, one that a stage after parsing let
through, or passages that do not point into their text. `translated` counts the errors that a parser's library, or the
parser, let through and `parse` turned into corrupt_document: each is worth a look. `benchmarks/README.md` has caveats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_mutations import Mutant, Source, mutant

from ragworks.bench.machine import commit, machine
from ragworks.errors import DocumentError, WorkerCrashed
from ragworks.runtimes.processes import WorkerPool
from ragworks.workers.reading import read_document, unspooled

CHUNK_TOKENS = 200
SLOWEST = 10
# What the worker says of an error that nobody translated: parsing translates its own, so a later stage let it through.
UNTRANSLATED = "the document cannot be read: "
TRANSLATED = re.compile(r"the (\S+) document cannot be read: (\w+)")


@dataclass(slots=True)
class Run:
    """What became of the files so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    formats: dict[str, Counter[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    translated: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    slow: list[tuple[float, str]] = field(default_factory=list)

    def note(self, label: str, form: str, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        self.formats.setdefault(form, Counter())[outcome] += 1
        self.slow = sorted([*self.slow, (round(seconds, 2), f"{label}: {outcome}")], reverse=True)[:SLOWEST]


def main() -> None:
    given = arguments()
    sources = [Source(path.name, path.read_bytes()) for path in sorted(given.source.iterdir()) if wanted(path)]
    if not sources:
        raise SystemExit(f"{given.source} holds no files")
    started = time.perf_counter()
    run, workers = asyncio.run(fuzz(given, sources))
    found = report(given, run, workers, time.perf_counter() - started)
    print(json.dumps(found, indent=1, ensure_ascii=False) if given.json else table(found))
    sys.exit(1 if run.unexpected else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=20.0)
    parser.add_argument("--memory-mib", type=int, default=1024)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def wanted(path: Path) -> bool:
    return path.is_file() and ".gt." not in path.name and path.name != "manifest.tsv"


async def fuzz(given: argparse.Namespace, sources: list[Source]) -> tuple[Run, dict[str, int]]:
    run = Run()
    numbers = iter(range(given.files) if given.only is None else [given.only])
    with tempfile.TemporaryDirectory(prefix="ragworks-fuzz-") as folder:
        async with WorkerPool(given.workers) as pool, asyncio.TaskGroup() as group:
            for lane in range(given.workers):
                group.create_task(take(numbers, Path(folder) / str(lane), pool, given, sources, run))
        return run, pool.stats()


async def take(
    numbers: Iterator[int], path: Path, pool: WorkerPool, given: argparse.Namespace, sources: list[Source], run: Run
) -> None:
    """Files from the common row, one after the other, each written to the same path."""
    for number in numbers:
        made = await asyncio.to_thread(damaged, number, path, given.seed, sources)
        label = f"{number} {made.name} ({made.how}, {len(made.data)} bytes)"
        started = time.perf_counter()
        outcome = await attempt(pool, path, made, label, given, run)
        run.note(label, made.name.rsplit(".", 1)[-1], outcome, time.perf_counter() - started)


def damaged(number: int, path: Path, seed: int, sources: list[Source]) -> Mutant:
    made = mutant(random.Random(f"{seed}:{number}"), sources)
    path.write_bytes(made.data)
    return made


async def attempt(pool: WorkerPool, path: Path, made: Mutant, label: str, given: argparse.Namespace, run: Run) -> str:
    try:
        await read(pool, path, made.name, given)
        return "indexed"
    except WorkerCrashed as error:
        run.crashes.append(f"{label}: {error}")
        keep(given.keep, label, made)
        return error.code
    except DocumentError as error:
        if not str(error).startswith(UNTRANSLATED):
            run.translated.update(" ".join(found.groups()) for found in TRANSLATED.finditer(str(error)))
            return error.code
        run.unexpected.append(f"{label}: {error}")
    except Exception as error:  # whatever it is, it is what this looks for
        run.unexpected.append(f"{label}: {type(error).__name__}: {error}")
    keep(given.keep, label, made)
    return "unexpected"


async def read(pool: WorkerPool, path: Path, name: str, given: argparse.Namespace) -> None:
    """The path of a document through a worker, and a look at what comes back. Raises what the pool raises."""
    spool = path.with_suffix(".spool")
    document = await pool.run(
        read_document, str(path), str(spool), name, None, None, None, CHUNK_TOKENS,
        limit_s=given.limit_s, max_memory_bytes=given.memory_mib * 1024**2,
    )  # fmt: skip
    with spool.open("rb") as file:
        parts = list(unspooled(file))
    text, chunks = "".join(part.text for part in parts), [chunk for part in parts for chunk in part.chunks]
    if not chunks or len(chunks) != document.chunk_count:
        raise AssertionError(f"indexed with {len(chunks)} passages, {document.chunk_count} counted")
    for chunk in chunks:
        if text[chunk.start : chunk.end] != chunk.text:
            raise AssertionError(f"passage {chunk.ordinal} does not point at its text")


def keep(folder: Path | None, label: str, made: Mutant) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{label.split(' ', 1)[0]}-{made.name}").write_bytes(made.data)


def report(given: argparse.Namespace, run: Run, workers: dict[str, int], seconds: float) -> dict[str, Any]:
    files = run.outcomes.total()
    return {
        "machine": machine(),
        "commit": commit(),
        "command": f"scripts/bench fuzz {' '.join(sys.argv[1:])}",
        "files": files,
        "seconds": round(seconds, 1),
        "files_per_s": round(files / seconds, 1),
        "outcomes": dict(run.outcomes.most_common()),
        "formats": {form: dict(found.most_common()) for form, found in sorted(run.formats.items())},
        "workers": workers,
        "replaced": sum(workers[why] for why in ("crashed", "timed_out", "over_memory")),
        "crashes": run.crashes,
        "translated": dict(run.translated.most_common()),
        "unexpected": run.unexpected,
        "slowest": [f"{took} s: {label}" for took, label in run.slow],
    }


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}"]
    lines += [f"{key:12}{found[key]}" for key in ("files", "seconds", "files_per_s", "workers", "replaced")]
    lines += ["", *(f"{outcome:24}{number:6}" for outcome, number in found["outcomes"].items()), ""]
    lines += [f"{form:6}{numbers}" for form, numbers in found["formats"].items()]
    for key in ("slowest", "crashes", "unexpected"):
        lines += ["", f"{key}:", *found[key]]
    lines += ["", f"translated: {found['translated']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
