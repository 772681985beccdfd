"""JSON bodies, read strictly: what is accepted here can be stored and sent back unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError

from ragworks.api.problems import bad_request
from ragworks.api.validation import InvalidBody, explain
from ragworks.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)


def body(model: type[M]) -> Callable[[Request], Coroutine[Any, Any, M]]:
    """A dependency that reads a JSON request body as ``model``."""

    async def read(request: Request) -> M:
        require_json(request)
        return validated(model, parse(await request.body()))

    return read


def accepts(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a route whose body is read by ``body``."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_json(request: Request) -> None:
    """Raises 415 unless the body is declared as JSON, or not declared at all."""
    found = media_type(request)
    if found and found != "application/json" and not found.endswith("+json"):
        raise HTTPException(
            415,
            f"expected a body of type application/json, found {found}; set the header Content-Type: application/json",
        )


def validated(model: type[M], value: Any) -> M:
    """``value`` as ``model``. Raises InvalidBody that names each wrong field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        message, rows = explain(error.errors(include_url=False, include_context=True), model)
        raise InvalidBody(message, rows) from None


def parse(data: bytes) -> Any:
    """Any JSON value. Raises 400 where it is not JSON, InvalidInput for text that no UTF-8 can hold."""
    try:
        text = data.decode("utf-8-sig")  # what PowerShell sends begins with a mark
    except UnicodeDecodeError as error:
        raise bad_request(
            f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}; send JSON in UTF-8"
        ) from None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise bad_request(_where(error)) from None
    except RecursionError:
        raise bad_request("the body nests deeper than can be read; flatten it") from None
    except ValueError as error:
        # Python's own words about long numbers advise on Python.
        message = "a number has more digits than can be read" if "set_int_max_str_digits" in str(error) else error
        raise bad_request(f"the body is not valid JSON: {message}") from None
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(value, "")
    return value


def _where(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "the body is empty; expected a JSON object"
    return f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; use null, or leave it out")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is larger than a number can be")
    return number


def _refuse_lone_surrogates(value: Any, place: str) -> None:
    if isinstance(value, str):
        _refuse_surrogate(value, place or "the body")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_lone_surrogates(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogate(key, f"a key of {place or 'the body'}")
            _refuse_lone_surrogates(item, f"{place}.{key}" if place else key)


def _refuse_surrogate(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise InvalidInput(
            f"{place}: expected Unicode text, found the lone surrogate {code} at character {error.start}; it is half "
            "of a character that was cut, or text decoded wrongly: repair it before sending"
        ) from None
