"""Ground truth in the forms it comes in (.md, .txt, .tex, ICDAR .xml) to words and table cells; and the two scores.

Truth and every parser's text go through the same `words` and `cells`, so that no parser is judged by its markup: link
targets, images, comments, tags and LaTeX commands are left out, words broken at a line's end are joined, letters are
compared after NFKC and case folding.
"""

from __future__ import annotations

import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz.distance import LCSseq, Levenshtein

_WORD = re.compile(r"[^\W_]+")
_MARKUP = re.compile(r"<!--.*?-->|!\[[^\]\n]*\]\([^()\n]*\)|</?[a-zA-Z][^<>\n]*>", re.DOTALL)
_LINK = re.compile(r"\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])(?:-|\u00ad|\ufffe)[ \t]*\r?\n[ \t]*(?=[^\W\d_])|\u00ad")
_RULE = re.compile(r"[\s|:-]*-[\s|:-]*")
_NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau", "phi")
_SPOKEN = {name: unicodedata.lookup(f"GREEK SMALL LETTER {'lamda' if name == 'lambda' else name}") for name in _NAMES}
_SPOKEN |= {name: name for name in ("sin", "cos", "tan", "log", "lim", "max", "min", "exp")}
# What TeX sets for \lipsum[1-10] is not in the source. The first words of some of its paragraphs are enough to see
# whether paragraphs come in their order.
_LIPSUM = """Lorem ipsum dolor sit amet. Nam dui ligula, fringilla a, euismod sodales. Nulla malesuada porttitor diam.
Quisque ullamcorper placerat ipsum. Fusce mauris. Vestibulum luctus nibh at lectus. Suspendisse vel felis. Ut lorem
lorem. Sed commodo posuere pede. Mauris ut est. Morbi luctus, wisi viverra faucibus pretium. Suspendisse vitae elit."""


@dataclass(frozen=True, slots=True)
class Truth:
    """``partial``: the truth names only a part of what the file shows, so that more words are no fault."""

    words: list[str]
    cells: list[str]
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """``words``: multiset F1 of words, or their recall where the truth is partial. ``order``: Levenshtein ratio of the
    word sequences, or the share of the truth that comes in its order. ``cells``: multiset F1 of table cells."""

    words: float
    order: float
    cells: float | None


def truth_of(path: Path) -> Truth:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".xml":
        found = [node.findtext("content") or "" for node in _in_order(ElementTree.fromstring(source))]
        return Truth(words(" ".join(found)), _squeezed(found), partial=True)
    if path.suffix == ".tex":
        return _of_tex(source)
    return Truth(words(source), cells(source) if path.suffix == ".md" else [])


def score(truth: Truth, text: str) -> Score:
    found = words(text)
    in_tables = _f1(truth.cells, cells(text)) if truth.cells else None
    if truth.partial:
        held = (Counter(truth.words) & Counter(found)).total() / len(truth.words)
        return Score(held, LCSseq.similarity(truth.words, found) / len(truth.words), in_tables)
    return Score(_f1(truth.words, found), Levenshtein.normalized_similarity(truth.words, found), in_tables)


def words(text: str) -> list[str]:
    """Words in order, as they are compared."""
    text = _LINK.sub(r"\1", _MARKUP.sub(" ", _HYPHEN.sub("", text)))
    text = _FORMULA.sub(lambda found: _spoken(found.group()), text)
    text = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall("".join(letter for letter in text if unicodedata.category(letter) != "Mn"))


def cells(text: str) -> list[str]:
    """The cells of all Markdown tables, without the empty ones."""
    rows = [line.strip() for line in text.split("\n") if line.strip().startswith("|") and not _RULE.fullmatch(line)]
    return _squeezed([cell for row in rows for cell in re.split(r"(?<!\\)\|", row.strip("|"))])


def _in_order(document: ElementTree.Element) -> list[ElementTree.Element]:
    """The cells of ICDAR 2013 by row; in the file they stand in the order they were annotated."""
    regions = sorted(document.iter("region"), key=lambda region: int(region.get("page", "0")))
    at = ("start-row", "start-col")
    return [
        cell
        for region in regions
        for cell in sorted(region.iter("cell"), key=lambda cell: tuple(int(cell.get(name, "0")) for name in at))
    ]


def _of_tex(source: str) -> Truth:
    body = source.partition(r"\begin{document}")[2].partition(r"\end{document}")[0]
    body = re.sub(r"(?<!\\)%.*", "", body).replace(r"\lipsum[1-10]", _LIPSUM)
    body = re.sub(r"\\(?:begin|end)\{\w+\}(?:\[\w*\])?(?:\{[lcr|]+\})?", " ", body)
    body = re.sub(r"\\text(?:bf|superscript)\{([^{}]*)\}", r"\1", body)
    table = [cell for row in body.split(r"\\") if "&" in row for cell in _without_commands(row).split("&")]
    return Truth(words(_without_commands(body)), _squeezed(table), partial=True)


def _without_commands(source: str) -> str:
    return _COMMAND.sub(" ", re.sub(r"\\caption\{[^{}]*\}", lambda found: found.group()[9:-1], source))


def _spoken(formula: str) -> str:
    named = _COMMAND.sub(lambda found: f" {_SPOKEN.get(found.group(1), '')} ", formula)
    return re.sub("([\u03b1-\u03c9])", r" \1 ", named)


def _squeezed(found: Sequence[str]) -> list[str]:
    return [squeezed for cell in found if (squeezed := " ".join(words(cell)))]


def _f1(truth: Sequence[str], found: Sequence[str]) -> float:
    total = len(truth) + len(found)
    return 2 * (Counter(truth) & Counter(found)).total() / total if total else 1.0
