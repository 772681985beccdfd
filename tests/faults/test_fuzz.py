"""Damaged files through real workers: a short form of `benchmarks/fuzz.py`, on documents made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from documents import pdf, word
from layouts import LEFT, RIGHT, column, page

FUZZER = Path(__file__).parent.parent.parent / "benchmarks" / "fuzz.py"
TEXT = "Größere Fahrräder über 5 kg: naïve Café-Gäste zahlen 3,50 €."


def test_every_damaged_file_is_indexed_or_refused_with_a_reason(tmp_path: Path) -> None:
    sources = {
        "terms.pdf": pdf([["# Warranty", "Frames: ten years."], ["Batteries: two years."]], title="Terms"),
        "columns.pdf": page(*column("l", LEFT, 90, 12), *column("r", RIGHT, 95, 12)),
        "list.docx": word(("Heading 1", "Parts"), ("List Bullet", "Bell"), [["Part", "Price"], ["Bell", "9"]]),
        "page.html": f"<!doctype html><h1>Café</h1><p>{TEXT}<table><tr><td>1<td>2</table>".encode("cp1252"),
        "notes.md": f"# Notes\n\n- {TEXT}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n".encode(),
        "letter.txt": TEXT.encode("utf-16"),
    }
    for name, data in sources.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, str(FUZZER), "--source", str(tmp_path), "--files", "60", "--seed", "1", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert (found["files"], found["unexpected"], found["crashes"]) == (60, [], [])
    assert sum(found["outcomes"].values()) == 60
    assert found["outcomes"]["indexed"] > 10
    assert found["outcomes"]["corrupt_document"] > 0
