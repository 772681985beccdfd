"""What pydantic found wrong with a body, in words that say what was expected and what came."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from ragworks.errors import InvalidInput

FOUND_CHARACTERS = 60

EXPECTED = {
    "missing": "a value",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a JSON object",
    "model_type": "a JSON object",
    "model_attributes_type": "a JSON object",
    "list_type": "a list",
    "string_too_short": "a length of at least {min_length}",
    "string_too_long": "at most {max_length} characters",
    "too_short": "a length of at least {min_length}",
    "too_long": "at most {max_length} entries",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
}


class InvalidBody(InvalidInput):
    """A readable body with wrong values; ``errors`` has a row (field, expected, found) for each."""

    def __init__(self, message: str, errors: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.errors = errors


def explain(
    found: Iterable[Mapping[str, Any]], model: type[BaseModel] | None = None
) -> tuple[str, list[dict[str, str]]]:
    """(a sentence, rows of field, expected, found) for pydantic's errors; ``model`` lets it propose names."""
    rows = _joined(_row(error, model) for error in found)
    first = rows[0]
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    return f"{first['field']}: expected {first['expected']}, found {first['found']}{more}", rows


def _row(error: Mapping[str, Any], model: type[BaseModel] | None) -> dict[str, str]:
    # FastAPI puts the place (query, path) in front of the name of a parameter.
    parts = error["loc"] if model is not None else error["loc"][1:]
    field = _dotted(_untagged(model, parts) if model else parts) or "body"
    if error["type"] == "extra_forbidden":
        return {"field": field, "expected": _known(model, parts), "found": f"the unknown field {parts[-1]!r}"}
    pattern = EXPECTED.get(error["type"])
    expected = pattern.format(**error.get("ctx", {})) if pattern else str(error["msg"])
    return {
        "field": field,
        "expected": expected,
        "found": "nothing" if error["type"] == "missing" else _short(error["input"]),
    }


def _joined(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """One row for a value that fits no member of a union, which pydantic tells member by member."""
    joined: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        known = joined.setdefault((row["field"], row["found"]), row)
        if known is not row:
            known["expected"] += f" or {row['expected']}"
    return list(joined.values())


def _untagged(model: type[BaseModel], parts: tuple[Any, ...]) -> Iterator[Any]:
    """The place of a value, without the names that pydantic gives to the members of unions on the way."""
    tag_follows = False
    for part in parts:
        if tag_follows and isinstance(part, str):
            tag_follows = False
            continue
        yield part
        field = model.model_fields.get(part)
        tag_follows = field is not None and _is_union(field.annotation)
        model = _model_at(model, (part,))


def _is_union(annotation: Any) -> bool:
    members = [one for one in get_args(annotation) if one is not NoneType]
    return get_origin(annotation) in (Union, UnionType) and len(members) > 1


def _dotted(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _short(value: Any) -> str:
    text = (
        repr(value)
        if not isinstance(value, bool) and value is not None
        else {True: "true", False: "false", None: "null"}[value]
    )
    return text if len(text) <= FOUND_CHARACTERS else f"{text[:FOUND_CHARACTERS]}…"


def _known(model: type[BaseModel] | None, parts: tuple[Any, ...]) -> str:
    names = list(_model_at(model, parts[:-1]).model_fields) if model else []
    near = difflib.get_close_matches(str(parts[-1]), names, n=1)
    return f"{near[0]!r} (did you mean that?)" if near else f"only {', '.join(names)}"


def _model_at(model: type[BaseModel], parts: tuple[Any, ...]) -> type[BaseModel]:
    for part in parts:
        if part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
