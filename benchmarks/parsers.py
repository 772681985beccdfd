"""Text of every file of a folder as ragworks and other parsers read it, against ground truth where there is one.

Usage: python benchmarks/parsers.py DIR [--parsers a,b] [--runs 3] [--limit 120] [--json]. Beside FILE may lie
FILE.gt.md, .gt.txt, .gt.tex or .gt.xml; a `manifest.tsv` with the column `source_repo` tells whose output a truth may
be. Each parser reads each file in a process of its own with a time limit. Exit code 1 if ragworks hangs or crashes, or
falls more than 2 % behind the best mean of a format in words or in order. Caveats are in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pypdfium2

from ragworks.bench.machine import commit, machine

try:
    from parsers_peers import PARSERS
    from parsers_truth import Score, score, truth_of
except ImportError as missing:
    sys.exit(f"{missing}; install what is compared: .venv/bin/pip install -e '.[bench]'")

OURS = "ragworks"
BEHIND = 0.02
MEASURES = ("words", "order", "cells")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one parser made of one file. ``status``: read, empty, refused, hung or crashed."""

    file: str
    format: str
    parser: str
    status: str
    reason: str = ""
    pages: int = 1
    cpu_s: float | None = None
    peak_mb: int | None = None
    score: Score | None = None


def main() -> None:
    given = arguments()
    parsers = given.parsers.split(",")
    about = {"machine": machine(), "commit": commit(), "versions": {name: installed(name) for name in parsers}}
    files = [path for path in sorted(given.folder.iterdir()) if path.is_file() and not apart(path)]
    readings = [
        read(path, parser, given)
        for path in files
        for parser in parsers
        if path.suffix[1:] in PARSERS[parser].formats.split() or parser == OURS
    ]
    found = {
        **about,
        "command": f"scripts/bench parsers {' '.join(sys.argv[1:])}",
        "truths_by": sources(given.folder),
        "formats": means(readings),
        "readings": [asdict(one) for one in readings],
    }
    print(json.dumps(found, indent=1, ensure_ascii=False) if given.json else table(found, readings))
    sys.exit(0 if met(found["formats"]) and not unwell(readings) else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parsers", default=",".join(PARSERS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for all runs of a parser on a file")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def installed(parser: str) -> str:
    try:
        return version(PARSERS[parser].package)
    except PackageNotFoundError as missing:
        raise SystemExit(f"{missing} is not installed; run .venv/bin/pip install -e '.[bench]'") from missing


def apart(path: Path) -> bool:
    return ".gt." in path.name or path.name == "manifest.tsv"


def read(path: Path, parser: str, given: argparse.Namespace) -> Reading:
    form = path.suffix[1:]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = Path(__file__).with_name("parsers_peers.py")
        command = [sys.executable, str(child), parser, str(path), str(given.runs), str(answer)]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=given.limit, env=os.environ)
        except subprocess.TimeoutExpired:
            return Reading(path.name, form, parser, "hung", f"longer than {given.limit:g} s")
        if not answer.exists():
            said = ended.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
            return Reading(path.name, form, parser, "crashed", f"exit code {ended.returncode}: {said}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    if found["status"] == "refused":
        return Reading(path.name, form, parser, "refused", found["reason"])
    truth = next(iter(sorted(path.parent.glob(f"{path.name}.gt.*"))), None)
    return Reading(
        path.name,
        form,
        parser,
        found["status"],
        pages=pages_of(path) if truth and form == "pdf" else 1,
        cpu_s=statistics.median(found["seconds"]),
        peak_mb=found["peak_mb"],
        score=score(truth_of(truth), found["text"]) if truth else None,
    )


def pages_of(path: Path) -> int:
    return len(pypdfium2.PdfDocument(path))


def sources(folder: Path) -> dict[str, str]:
    """File to the repository that its truth comes from, as far as a manifest says."""
    manifest = folder / "manifest.tsv"
    if not manifest.exists():
        return {}
    with manifest.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return {Path(row["path"]).name: row["source_repo"] for row in rows if row.get("ground_truth")}


def means(readings: list[Reading]) -> dict[str, dict[str, dict[str, float]]]:
    """Format to parser to mean of each measure over the format's files with truth; not read counts as 0."""
    scored = {one.file for one in readings if one.score}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in readings:
        if one.file in scored:
            found.setdefault(one.format, {}).setdefault(one.parser, {})
    for form, parsers in found.items():
        for parser in parsers:
            mine = [one for one in readings if (one.format, one.parser) == (form, parser) and one.file in scored]
            with_cells = {one.file for one in readings if one.score and one.score.cells is not None}
            for measure in MEASURES:
                counted = [one for one in mine if measure != "cells" or one.file in with_cells]
                if counted:
                    values = [getattr(one.score, measure) if one.score else 0.0 for one in counted]
                    parsers[parser][measure] = statistics.mean(values)
            timed = [one for one in mine if one.cpu_s is not None]
            if timed:
                parsers[parser]["pages_per_s"] = sum(one.pages for one in timed) / sum(one.cpu_s or 0 for one in timed)
    return found


def met(formats: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Whether ours is the best mean of each format, or at most 2 % behind it."""
    return all(
        parsers[OURS][measure] >= (1 - BEHIND) * max(one[measure] for one in parsers.values())
        for parsers in formats.values()
        if OURS in parsers
        for measure in ("words", "order")
    )


def unwell(readings: list[Reading]) -> list[Reading]:
    return [one for one in readings if one.parser == OURS and one.status in ("hung", "crashed")]


def table(found: dict[str, Any], readings: list[Reading]) -> str:
    named = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    head = f"{found['machine']}; commit {found['commit']}; {named}"
    tables = (format_rows(found["formats"]), file_rows(found["truths_by"], readings), status_rows(readings))
    return "\n\n".join([head, *("\n".join(rows) for rows in tables)])


def format_rows(formats: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    yield "| format | parser | words | order | cells | pages per CPU second |"
    yield "|---|---|---:|---:|---:|---:|"
    for form, parsers in formats.items():
        for parser, figures in parsers.items():
            shown = [f"{figures[measure]:.3f}" if measure in figures else "" for measure in MEASURES]
            speed = f"{figures['pages_per_s']:.1f}" if "pages_per_s" in figures else ""
            yield f"| {form} | {parser} | {' | '.join(shown)} | {speed} |"


def file_rows(truths_by: dict[str, str], readings: list[Reading]) -> Iterator[str]:
    """Words / order (/ cells) of each parser on each file with truth."""
    parsers = list(dict.fromkeys(one.parser for one in readings))
    yield f"| file | truth by | {' | '.join(parsers)} |"
    yield f"|---|---|{'---|' * len(parsers)}"
    for file in dict.fromkeys(one.file for one in readings if one.score):
        mine = {one.parser: one for one in readings if one.file == file}
        yield f"| {file} | {truths_by.get(file, '')} | {' | '.join(shown(mine.get(name)) for name in parsers)} |"


def shown(one: Reading | None) -> str:
    if one is None:
        return ""
    if one.score is None:
        return one.status
    parts = [one.score.words, one.score.order] + ([one.score.cells] if one.score.cells is not None else [])
    return " / ".join(f"{part:.3f}" for part in parts)


def status_rows(readings: list[Reading]) -> Iterator[str]:
    """What each parser did with each file: seconds of CPU and peak memory, or why it has no text."""
    yield "| file | parser | status | CPU s | peak MB | reason |"
    yield "|---|---|---|---:|---:|---|"
    for one in readings:
        if one.parser == OURS or one.status not in ("read", "refused"):
            seconds = "" if one.cpu_s is None else f"{one.cpu_s:.3f}"
            reason = one.reason.replace("|", "\\|").replace("\n", " ")[:100]
            yield f"| {one.file} | {one.parser} | {one.status} | {seconds} | {one.peak_mb or ''} | {reason} |"


if __name__ == "__main__":
    main()
