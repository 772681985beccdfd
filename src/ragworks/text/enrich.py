"""What a document says about itself: title, author, dates, length."""

from __future__ import annotations

import re
from dataclasses import replace

from ragworks.text.names import stem
from ragworks.types import Parsed

_LONGEST_TITLE = 200
# What programs write into the title field when nobody does.
_NO_TITLE = re.compile(
    r"(?:untitled\b.*|(?:new )?document\d*|microsoft (?:word|powerpoint|excel)\b.*|slide \d+|powerpoint presentation"
    r"|(?:sheet|tabelle|feuil|hoja|foglio|planilha) ?\d+"
    r"|.*\.(?:docx?|pdf|indd|qxd|tex|dvi|ps|pptx?|xlsx?|html?|pages|odt|rtf|txt))",
    re.IGNORECASE,
)


def enrich(parsed: Parsed, name: str) -> Parsed:
    """The document with a title, always, and its properties.

    The title is the one its metadata name, else its first heading, else the stem of ``name``.
    """
    title = _usable(parsed.title) or _first_heading(parsed) or stem(name)
    properties = dict(parsed.properties)
    if parsed.pages is not None:
        properties["pages"] = parsed.pages
    return replace(parsed, title=title, properties=properties)


def _first_heading(parsed: Parsed) -> str | None:
    """The outermost heading of the first section that has one, if that is on the first page."""
    for section in parsed.sections:
        if section.page is not None and section.page > 1:
            return None
        if section.headings:
            return _usable(section.headings[0])
    return None


def _usable(title: str | None) -> str | None:
    text = " ".join((title or "").split())
    if len(text) < 2 or not any(character.isalpha() for character in text) or _NO_TITLE.fullmatch(text):
        return None
    return text[:_LONGEST_TITLE]
