"""Names of documents: what a caller wrote, cleaned so that it can be an id and a relative path."""

from __future__ import annotations

import re
import unicodedata

from ragworks.errors import InvalidInput

# Controls, and the formatting characters that turn the reading direction: a name must read as it is written.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_DRIVE = re.compile(r"^[A-Za-z]:")


def clean_name(name: str) -> str:
    """The relative name with ``/`` between its parts, NFC, without drive, root, ``.``, ``..`` and control characters.

    Raises InvalidInput when nothing is left.

    >>> clean_name("C:\\\\reports\\\\..\\\\2024 plan.pdf")
    'reports/2024 plan.pdf'
    """
    text = _UNPRINTABLE.sub("", unicodedata.normalize("NFC", name)).replace("\\", "/")
    parts = (part.strip() for part in _DRIVE.sub("", text.strip()).split("/"))
    cleaned = "/".join(part for part in parts if part not in ("", ".", ".."))
    if not cleaned:
        raise InvalidInput(f"a document needs a name such as 'reports/plan.pdf', found {name!r}")
    return cleaned


def stem(name: str) -> str:
    """The last part of a name, without its ending, as a title: ``hr/travel_policy.pdf`` gives ``travel policy``."""
    last = name.rsplit("/", 1)[-1]
    base = last.rsplit(".", 1)[0] or last
    return " ".join(re.split(r"[\s_]+", base)).strip() or last


def ending(name: str) -> str:
    """The lower-case ending of a name without the dot, or nothing."""
    last = name.rsplit("/", 1)[-1]
    return last.rsplit(".", 1)[1].lower() if "." in last.lstrip(".") else ""
