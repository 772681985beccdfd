"""What a document says about itself: title, author, dates, language, length."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ragworks.text.dates import iso_date
from ragworks.text.language import language
from ragworks.text.names import stem
from ragworks.types import Parsed

_LONGEST_TITLE = 200
_LONGEST_AUTHOR = 200
# What programs write into the title field when nobody does.
_NO_TITLE = re.compile(
    r"(?:untitled\b.*|(?:new )?document\d*|microsoft (?:word|powerpoint|excel)\b.*|slide \d+|powerpoint presentation"
    r"|(?:sheet|tabelle|feuil|hoja|foglio|planilha) ?\d+"
    r"|.*\.(?:docx?|pdf|indd|qxd|tex|dvi|ps|pptx?|xlsx?|html?|pages|odt|rtf|txt))",
    re.IGNORECASE,
)
_NO_AUTHOR = re.compile(r"(?:unknown|author|user|admin(?:istrator)?|owner|anonymous|none|n/a|[\W_]*)", re.IGNORECASE)
_DECLARED = re.compile(r"([A-Za-z]{2})(?:[-_].*)?$")


def enrich(parsed: Parsed, name: str) -> Parsed:
    """The document with a title, always, and its properties: those of ``PROPERTIES`` that it has, and its parser's own.

    The title is the one its metadata name, else its first heading, else the stem of ``name``. A property that cannot be
    found out is left out, with a warning.
    """
    title = _usable(parsed.title) or _first_heading(parsed) or stem(name)
    properties = {key: value for key, value in parsed.properties.items() if key not in PROPERTIES}
    warnings = list(parsed.warnings)
    for key, find in PROPERTIES.items():
        try:
            value = find(parsed)
        except MemoryError:
            raise
        except Exception as error:  # an enrichment that fails costs itself and not the document
            warnings.append(f"{key} could not be found out: {error}")
        else:
            properties |= {} if value is None else {key: value}
    return replace(parsed, title=title, properties=properties, warnings=tuple(warnings))


def _author(parsed: Parsed) -> str | None:
    author = " ".join(str(parsed.properties.get("author") or "").split())[:_LONGEST_AUTHOR]
    return None if _NO_AUTHOR.fullmatch(author) else author


def _date(key: str) -> Callable[[Parsed], str | None]:
    return lambda parsed: iso_date(str(parsed.properties.get(key) or ""))


def _language(parsed: Parsed) -> str | None:
    declared = _DECLARED.match(str(parsed.properties.get("language") or ""))
    return language(parsed) or (declared.group(1).lower() if declared else None)


PROPERTIES: Mapping[str, Callable[[Parsed], Any]] = {
    "author": _author,
    "created": _date("created"),
    "modified": _date("modified"),
    "language": _language,
    "pages": lambda parsed: parsed.pages,
    "media_type": lambda parsed: parsed.media_type,
}
"""The properties that any document may have, whatever its format, and that filters may name."""


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
