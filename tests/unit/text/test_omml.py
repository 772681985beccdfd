from __future__ import annotations

import io

import docx
import pytest
from docx.oxml import parse_xml
from lxml import etree

from ragworks.text.omml import latex
from ragworks.text.parse_office import parse_docx

NAMESPACE = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def formula(inside: str) -> str:
    return f'<m:oMath xmlns:m="{NAMESPACE}">{inside}</m:oMath>'


def run(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


def e(text: str, tag: str = "e") -> str:
    return f"<m:{tag}>{run(text)}</m:{tag}>"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (run("A=π") + f"<m:sSup>{e('r')}{e('2', 'sup')}</m:sSup>", "A=πr^{2}"),
        (f"<m:f>{e('a', 'num')}{e('b', 'den')}</m:f>", r"\frac{a}{b}"),
        (f"<m:sSubSup>{e('N')}{e('s', 'sub')}{e('H', 'sup')}</m:sSubSup>", "N_{s}^{H}"),
        (f"<m:rad><m:deg/>{e('2')}</m:rad><m:rad>{e('3', 'deg')}{e('x')}</m:rad>", r"\sqrt{2}\sqrt[3]{x}"),
        (
            f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>{e("k=1", "sub")}{e("n", "sup")}{e("k")}</m:nary>',
            "∑_{k=1}^{n}k",
        ),
        (f"<m:nary><m:sub/><m:sup/>{e('dx')}</m:nary>", "∫dx"),
        (f"<m:d>{e('a')}{e('b')}</m:d>", "(a|b)"),
        (f'<m:d><m:dPr><m:begChr m:val="{{"/><m:endChr m:val=""/></m:dPr>{e("x")}</m:d>', r"\{x"),
        (f"<m:func>{e('cos', 'fName')}{e('x')}</m:func>", "cos x"),
        (f"<m:acc>{e('v')}</m:acc><m:bar>{e('z')}</m:bar>", r"\hat{v}\bar{z}"),
        (f"<m:limLow><m:e><m:groupChr>{e('x')}</m:groupChr></m:e>{e('n', 'lim')}</m:limLow>", r"\underbrace{x}_{n}"),
        (f"<m:m><m:mr>{e('1')}{e('0')}</m:mr><m:mr>{e('0')}{e('1')}</m:mr></m:m>", r"1 & 0 \\ 0 & 1"),
        (f"<m:eqArr>{e('x=1')}{e('y=2')}</m:eqArr>", r"x=1 \\ y=2"),
        (f"<m:box>{e('a')}</m:box><m:unheard>{e('b')}</m:unheard>", "ab"),
    ],
)  # fmt: skip
def test_a_formula_is_latex_with_its_own_letters(source: str, expected: str) -> None:
    assert latex(etree.fromstring(formula(source))) == expected


def test_a_formula_nested_without_end_keeps_its_text() -> None:
    depth = 100
    source = "<m:sSup><m:e>" * depth + run("x") + "</m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>" * depth
    found = latex(etree.fromstring(formula(source)))
    assert found.count("x") == 1
    assert found.count("2") == depth


def test_formulas_stand_in_their_sentence() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("The area is ")
    paragraph._p.append(parse_xml(formula(run("A=π") + f"<m:sSup>{e('r')}{e('2', 'sup')}</m:sSup>")))
    paragraph.add_run(" of a circle.")
    buffer = io.BytesIO()
    document.save(buffer)
    assert parse_docx(buffer.getvalue()).text == "The area is $A=πr^{2}$ of a circle."
