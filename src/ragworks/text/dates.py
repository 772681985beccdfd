"""Dates as programs write them to ISO 8601, in one form, so that they compare as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PDF = re.compile(
    r"(?:D:)?(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?\s*(?:(Z)|([+-]\d\d)'?(?::?(\d\d))?'?)?.*", re.DOTALL
)
_PART = re.compile(r"\d{4}(?:-(?:0[1-9]|1[0-2]))?")
_SLASHES = re.compile(r"^(\d{4})[/.](\d\d)[/.](\d\d)\b")
_WRITTEN = ("%B %d, %Y", "%b %d, %Y", "%d %B %Y", "%d %b %Y")
_LONGEST = 100


def iso_date(text: str) -> str | None:
    """``2024-01-03T08:38:26Z`` where the zone is known, else without the Z, or shorter; None for what is no date.

    >>> iso_date("D:20240103093826+01'00'"), iso_date("Wed, 03 Jan 2024 09:38:26 +0100")
    ('2024-01-03T08:38:26Z', '2024-01-03T08:38:26Z')
    """
    text = " ".join(text[:_LONGEST].split())
    if _PART.fullmatch(text):
        return text
    return _iso(text) or _pdf(text) or _mail(text) or _written(text)


def _iso(text: str) -> str | None:
    text = _SLASHES.sub(r"\1-\2-\3", text)
    try:
        return _shown(datetime.fromisoformat(text), whole=len(text) <= 10)
    except ValueError:
        return None


def _pdf(text: str) -> str | None:
    found = _PDF.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, utc, hours, minutes = found.groups()
    zone = "Z" if utc else f"{hours}:{minutes or '00'}" if hours else ""
    time = f"T{hour}:{minute}:{second or '00'}{zone}" if hour else ""
    return _iso(f"{year}-{month}-{day}{time}")


def _mail(text: str) -> str | None:
    try:
        return _shown(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _written(text: str) -> str | None:
    for form in _WRITTEN:
        try:
            return datetime.strptime(text, form).strftime("%Y-%m-%d")  # noqa: DTZ007 - a day without a time
        except ValueError:
            pass
    return None


def _shown(at: datetime, *, whole: bool = False) -> str | None:
    try:
        at = at.astimezone(UTC) if at.tzinfo else at
    except OverflowError:  # the first hours of year 1, or the last of 9999
        return None
    if whole:
        return at.date().isoformat()
    return at.replace(microsecond=0, tzinfo=None).isoformat() + ("Z" if at.tzinfo else "")
