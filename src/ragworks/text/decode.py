"""Bytes to text, whatever their encoding, with nothing repaired."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from ragworks.errors import UnsupportedFormat

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 64 * 1024
_CONTROLS = re.compile(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\b[^>]{0,500}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE
)
# Hebrew and Arabic in logical order, whose names some versions of Python do not know.
_DIRECTION = re.compile(r"^(iso-8859-[68])-[ei]$", re.IGNORECASE)


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of ``data`` without a byte order mark: by the mark, UTF-8, ``declared``, or what the bytes look like.

    Raises UnsupportedFormat when no encoding fits.
    """
    mark = next(((bom, name) for bom, name in _MARKS if data.startswith(bom)), None)
    if mark:
        return _strictly(data[len(mark[0]) :], mark[1])
    wide = _wide(data)
    if wide:
        return _strictly(data, wide)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    return _as_declared(data, declared) or _guessed(data)


def head(data: bytes) -> str:
    """The first characters, enough to see what a text is; what no part of it can tell is replaced."""
    mark = next(((bom, name) for bom, name in _MARKS if data.startswith(bom)), (b"", _wide(data) or "utf-8"))
    return data[len(mark[0]) : _SAMPLE].decode(mark[1], "replace")


def declared_charset(data: bytes) -> str | None:
    """The encoding that an HTML or XML text names in its first bytes."""
    found = _DECLARED.search(data[:4096])
    return found.group(1).decode("ascii") if found else None


def is_binary(data: bytes) -> bool:
    """Whether these bytes are no text in any encoding: NULs, or many control characters."""
    if data.startswith(tuple(bom for bom, _ in _MARKS)) or _wide(data):
        return False
    sample = data[:_SAMPLE]
    return b"\0" in data or len(_CONTROLS.findall(sample)) > len(sample) // 100


def _wide(data: bytes) -> str | None:
    """UTF-16 without a mark: mostly Latin text, so that one byte of each pair is NUL."""
    sample = data[:_SAMPLE]
    if len(data) % 2 or len(sample) < 8 or sample.count(0) * 10 < len(sample) * 4:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if min(even, odd) * 50 > len(sample):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnsupportedFormat(
            f"the text announces {encoding} but is not {encoding} at byte {error.start}; save it as UTF-8"
        ) from error


def _as_declared(data: bytes, declared: str | None) -> str | None:
    declared = _DIRECTION.sub(r"\1", declared or "")
    try:
        # What browsers do: pages that say Latin-1 mean Windows-1252, whose extra characters Latin-1 has not.
        name = "cp1252" if declared and codecs.lookup(declared).name in ("iso8859-1", "ascii") else declared
        return data.decode(name) if name else None
    except (LookupError, UnicodeDecodeError):
        return None


def _guessed(data: bytes) -> str:
    matches = from_bytes(data)
    best = matches.best()
    if best is None:
        raise UnsupportedFormat("the bytes are no text in any known encoding; save the document as UTF-8 text")
    alike = {name for match in matches if match.chaos <= best.chaos + 0.01 for name in match.could_be_from_charset}
    # Short Western texts fit a dozen code pages equally well, and are Windows-1252 far more often than any other.
    return data.decode("cp1252" if "cp1252" in alike else best.encoding).removeprefix("\ufeff")
