r"""Formulas of Word (OMML) to LaTeX, with letters and operators as they are: ``\frac{a}{b}``, ``∑_{k=1}^{n}A_{k}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
FORMULA = f"{_M}oMath"
_MAX_DEPTH = 60  # deeper ones are damage; their text still comes, without its structure
_ESCAPED = str.maketrans({"{": r"\{", "}": r"\}"})
_ACCENTS = {
    "\u0302": "hat",
    "\u0303": "tilde",
    "\u0304": "bar",
    "\u0305": "bar",
    "\u0307": "dot",
    "\u0308": "ddot",
    "\u20d7": "vec",
}


def latex(element: Any, depth: int = 0) -> str:
    """The formula below this element."""
    if depth > _MAX_DEPTH:
        return "".join(node.text or "" for node in element.iter(f"{_M}t"))
    return "".join(_one(child, depth + 1) for child in element if isinstance(child.tag, str))


def _one(node: Any, depth: int) -> str:
    name = node.tag.removeprefix(_M)

    def part(tag: str) -> str:
        found = node.find(_M + tag)
        return "" if found is None else latex(found, depth)

    if name == "t":
        return str(node.text or "").translate(_ESCAPED)
    if name in _SHAPES:
        parts = {tag: part(tag) for tag in ("e", "num", "den", "sub", "sup", "lim", "fName")}
        return _SHAPES[name].format(before=_scripts(parts["sub"], parts["sup"]), **parts)
    if name in ("nary", "acc", "groupChr", "rad", "d"):
        return _marked(node, name, part, depth)
    if name in ("eqArr", "m"):
        tag = "e" if name == "eqArr" else "mr"
        return r" \\ ".join(_row(row, name, depth) for row in node.findall(_M + tag))
    return "" if name.endswith("Pr") else latex(node, depth)


_SHAPES = {
    "f": r"\frac{{{num}}}{{{den}}}",
    "sSup": "{e}^{{{sup}}}",
    "sSub": "{e}_{{{sub}}}",
    "sSubSup": "{e}_{{{sub}}}^{{{sup}}}",
    "sPre": "{before}{e}",
    "func": "{fName} {e}",
    "limLow": "{e}_{{{lim}}}",
    "limUpp": "{e}^{{{lim}}}",
    "bar": r"\bar{{{e}}}",
}


def _marked(node: Any, name: str, part: Callable[[str], str], depth: int) -> str:
    """Shapes whose sign is an attribute."""
    body = part("e")
    if name == "nary":
        return _sign(node, "naryPr/chr", "∫") + _scripts(part("sub"), part("sup")) + body
    if name == "rad":
        degree = part("deg")
        return rf"\sqrt[{degree}]{{{body}}}" if degree else rf"\sqrt{{{body}}}"
    if name == "acc":
        return rf"\{_ACCENTS.get(_sign(node, 'accPr/chr', chr(0x302)), 'hat')}{{{body}}}"
    if name == "groupChr":
        over = _sign(node, "groupChrPr/pos", "bot") == "top"
        return rf"\{'overbrace' if over else 'underbrace'}{{{body}}}"
    inside = _sign(node, "dPr/sepChr", "|").join(latex(one, depth) for one in node.findall(f"{_M}e"))
    begin, end = _sign(node, "dPr/begChr", "("), _sign(node, "dPr/endChr", ")")
    return f"{begin.translate(_ESCAPED)}{inside}{end.translate(_ESCAPED)}"


def _row(row: Any, name: str, depth: int) -> str:
    return latex(row, depth) if name == "eqArr" else " & ".join(latex(cell, depth) for cell in row.findall(f"{_M}e"))


def _scripts(below: str, above: str) -> str:
    return (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")


def _sign(node: Any, path: str, otherwise: str) -> str:
    found = node.find("/".join(_M + step for step in path.split("/")))
    return otherwise if found is None else str(found.get(f"{_M}val", ""))
