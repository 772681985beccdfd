"""Foot- and endnotes of a Word document, put behind the paragraph or table that refers to them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml.ns import qn
from docx.oxml.parser import OxmlElement

from ragworks.errors import CorruptDocument
from ragworks.text.xml import root

_KINDS = (
    (RELATIONSHIP_TYPE.FOOTNOTES, qn("w:footnote"), qn("w:footnoteReference")),
    (RELATIONSHIP_TYPE.ENDNOTES, qn("w:endnote"), qn("w:endnoteReference")),
)
_BLOCKS = (qn("w:p"), qn("w:tbl"))
_HEADINGS = ("heading", "title")


def place_notes(document: Any) -> None:
    """Changes the document: ``[^1]`` stands where a note is referred to, ``[^1]: its text`` is a paragraph below.

    Only the first reference to a note brings its text: a note that is named a million times is an attack.
    """
    notes = {
        (reference, id): note for relation, tag, reference in _KINDS for id, note in _notes(document, relation, tag)
    }
    if not notes:
        return
    last: dict[Any, Any] = {}
    number = 0
    for reference in list(document.element.body.iter(*(tag for _, _, tag in _KINDS))):
        paragraphs = notes.pop((reference.tag, reference.get(qn("w:id"))), [])
        if not paragraphs:
            continue
        number += 1
        block = _outermost_block(reference)
        if not _is_heading(block):  # a heading is a name, and names bear no marks
            reference.addnext(_text(f"[^{number}]"))
        for position, paragraph in enumerate(paragraphs):
            if not position:
                paragraph.insert(0, _run(f"[^{number}]: "))
            last.get(block, block).addnext(paragraph)
            last[block] = paragraph


def _notes(document: Any, relation: str, tag: str) -> Iterator[tuple[str, list[Any]]]:
    """(id, paragraphs) of all notes of a kind."""
    try:
        notes = root(document.part.part_related_by(relation).blob)
    except (KeyError, CorruptDocument):
        return
    for note in notes.iter(tag):
        if note.get(qn("w:type"), "normal") == "normal":
            yield note.get(qn("w:id")), [_plain(one) for one in note.iter(qn("w:p")) if _speaks(one)]


def _speaks(paragraph: Any) -> bool:
    return any((text.text or "").strip() for text in paragraph.iter(qn("w:t")))


def _plain(paragraph: Any) -> Any:
    """A copy without the paragraph's style, which could make a heading or list of it."""
    plain = copy.deepcopy(paragraph)
    for style in plain.findall(qn("w:pPr")):
        plain.remove(style)
    return plain


def _outermost_block(element: Any) -> Any:
    return [one for one in element.iterancestors() if one.tag in _BLOCKS][-1]


def _is_heading(block: Any) -> bool:
    style = block.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
    return style is not None and style.get(qn("w:val"), "").lower().startswith(_HEADINGS)


def _run(text: str) -> Any:
    run = OxmlElement("w:r")
    run.append(_text(text))
    return run


def _text(text: str) -> Any:
    made = OxmlElement("w:t")
    made.text = text
    return made
