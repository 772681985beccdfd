"""Metadata filters (comparison and compound form of OpenAI's vector stores) to SQL over JSON columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragworks.errors import UnusableFilter

COMPARISONS = {"eq": "=", "ne": "IS NOT", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "IN", "nin": "NOT IN"}
COMPOUNDS = {"and": " AND ", "or": " OR "}
MAX_DEPTH, MAX_PARTS, MAX_VALUES = 20, 500, 1500
LONGEST_INTEGER_BITS = 63  # what SQLite compares as an integer

Sql = tuple[str, list[Any]]
Columns = tuple[str, str]


def compile_filter(given: Any, column: str, fallback: str) -> Sql:
    """(condition, parameters) for a filter such as ``{"type": "eq", "key": "year", "value": 2026}``.

    A key is looked up in ``column``, then, where it is not there or null, in ``fallback``. A document without the key
    matches only ``ne`` and ``nin``. Raises UnusableFilter.
    """
    condition, values = _compiled(given, (column, fallback), 0)
    if len(values) > MAX_VALUES:
        raise UnusableFilter(f"a filter may hold {MAX_VALUES // 3} comparisons, this one is larger")
    return condition, values


def _compiled(given: Any, columns: Columns, depth: int) -> Sql:
    if not isinstance(given, Mapping):
        raise UnusableFilter(f"a filter is an object with a type, found {given!r}")
    kind = given.get("type")
    if depth > MAX_DEPTH:
        raise UnusableFilter(f"a filter may nest {MAX_DEPTH} levels deep")
    if kind in COMPOUNDS:
        return _compound(str(kind), given, columns, depth)
    if kind in COMPARISONS:
        return _comparison(str(kind), given, columns)
    raise UnusableFilter(f"filter type must be one of {', '.join([*COMPARISONS, *COMPOUNDS])}, found {kind!r}")


def _compound(kind: str, given: Mapping[str, Any], columns: Columns, depth: int) -> Sql:
    _only(given, "type", "filters")
    parts = given["filters"]
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_PARTS:
        raise UnusableFilter(f"{kind!r} needs a list of 1 to {MAX_PARTS} filters, found {parts!r:.80}")
    compiled = [_compiled(part, columns, depth + 1) for part in parts]
    condition = COMPOUNDS[kind].join(f"({sql})" for sql, _ in compiled)
    return condition, [value for _, values in compiled for value in values]


def _comparison(kind: str, given: Mapping[str, Any], columns: Columns) -> Sql:
    _only(given, "type", "key", "value")
    key, value = given["key"], given["value"]
    if not isinstance(key, str) or not key or '"' in key or "\0" in key or not _encodes(key):
        raise UnusableFilter(f"a filter's key is the name of a metadata field, found {key!r}")
    # The second extraction runs only where the first finds nothing: a filter by metadata costs no more for it.
    place = f"coalesce({', '.join(f'json_extract({column}, ?)' for column in columns)})"
    path = [f'$."{key}"'] * len(columns)
    if kind in ("in", "nin"):
        return _membership(kind, place, path, value)
    _scalar(value)
    if kind in ("eq", "ne"):
        return f"{place} {COMPARISONS[kind]} ?", [*path, value]
    # SQLite orders every text above every number; only like may be compared with like.
    types = "('text')" if isinstance(value, str) else "('integer', 'real')"
    return f"typeof({place}) IN {types} AND {place} {COMPARISONS[kind]} ?", [*path, *path, value]


def _membership(kind: str, place: str, path: list[str], values: Any) -> Sql:
    if not isinstance(values, list) or not 0 < len(values) <= MAX_PARTS:
        raise UnusableFilter(f"{kind!r} needs a list of 1 to {MAX_PARTS} values, found {values!r:.80}")
    for value in values:
        _scalar(value)
    marks = ", ".join("?" * len(values))
    if kind == "in":
        return f"{place} IN ({marks})", [*path, *values]
    return f"({place} IS NULL OR {place} NOT IN ({marks}))", [*path, *path, *values]


def _scalar(value: Any) -> None:
    if not isinstance(value, str | int | float | bool):
        raise UnusableFilter(f"a filter compares with text, a number or true/false, found {value!r:.80}")
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER_BITS:
        raise UnusableFilter("a filter compares with whole numbers of up to 64 bits; write a larger one as text")
    if isinstance(value, str) and not _encodes(value):
        raise UnusableFilter("a filter's text holds a lone surrogate, which no document can hold")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _only(given: Mapping[str, Any], *keys: str) -> None:
    if set(given) != set(keys):
        raise UnusableFilter(
            f"a filter of type {given['type']!r} has the keys {', '.join(keys)}; found {', '.join(given)}"
        )
