"""Settings in files and variables: read, laid over each other, and built into frozen dataclasses, or refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, get_type_hints

from ragworks.errors import InvalidSettings

PROFILE = "RAGWORKS_PROFILE"


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    of: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field with its documentation and its allowed range, both of which ``config show`` and errors print."""
    return field(default=default, repr=not secret, metadata={"doc": doc, "low": low, "high": high, "of": of})


def read_toml(path: str | None) -> dict[str, Any]:
    """The file's tables; none if no path was given and ``./ragworks.toml`` is not there."""
    file = Path(path or "ragworks.toml")
    if path is None and not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InvalidSettings(f"there is no configuration file {file}; give --config an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is not valid TOML: {error}") from error


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The tables that variables like RAGWORKS_SECTION__KEY make."""
    values: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if name.startswith("RAGWORKS_") and name != PROFILE:
            if "__" not in name:
                raise InvalidSettings(
                    f"unknown environment variable {name}; settings are RAGWORKS_SECTION__KEY, two underscores between "
                    "section and key, as in RAGWORKS_SERVER__PORT"
                )
            *sections, key = name.removeprefix("RAGWORKS_").lower().split("__")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    raise InvalidSettings(f"{name}: {section} is a setting by itself, and holds no {key}")
            place[key] = text
    return values


def merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Lay ``more`` over ``values``, table by table; None leaves what is there."""
    for key, value in more.items():
        if isinstance(value, Mapping) and key in values:
            if isinstance(values[key], dict):  # else it is refused for what it is when the tree is built
                merge(values[key], value)
        elif value is not None:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def build(kind: Any, values: Any, prefix: str) -> Any:
    """An instance of the dataclass ``kind``. Raises InvalidSettings that names key, value and what is allowed."""
    if not isinstance(values, Mapping):
        raise InvalidSettings(f"[{prefix.rstrip('.')}] must be a table of settings, found {values!r}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]!s}?" if near else f"known here: {', '.join(known)}"
            raise InvalidSettings(f"unknown setting {prefix}{key}; {hint}")
    made = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            made[key] = build(hints[key], value, f"{prefix}{key}.")
        else:
            made[key] = _checked(f"{prefix}{key}", _converted(f"{prefix}{key}", value, hints[key]), known[key].metadata)
    return kind(**made)


def _converted(key: str, value: Any, kind: Any) -> Any:
    try:
        if kind is bool:
            return {True: True, False: False, "true": True, "false": False, "1": True, "0": False}[
                value.lower() if isinstance(value, str) else value
            ]
        if kind in (int, float) and not isinstance(value, bool):
            if kind is int and isinstance(value, float):
                raise ValueError
            return kind(value)
        if kind is str and isinstance(value, str):
            return value
        if kind == Mapping[str, str] and all(isinstance(one, str) for one in value.values()):
            return dict(value)
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise InvalidSettings(f"{key} must be {_called(kind)}, found {value!r}")


def _called(kind: Any) -> str:
    called = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return "a table of texts" if kind == Mapping[str, str] else called.get(kind, "a list of names")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: which known name was meant, if one is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _checked(key: str, value: Any, rule: Mapping[str, Any]) -> Any:
    low, high, of = rule["low"], rule["high"], rule["of"]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidSettings(f"{key} must be a number, found {value!r}")
    if of:
        for one in value if isinstance(value, tuple) else (value,):
            if one not in of:
                raise InvalidSettings(f"{key} must be one of {', '.join(of)}, found {one!r}{nearest(str(one), of)}")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise InvalidSettings(f"{key} must be {bounds}, found {value!r}")
    return value


def describe(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(key, value, documentation) of every setting, in order."""
    rows: list[tuple[str, Any, str]] = []
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        key = f"{prefix}{item.name}"
        rows += describe(value, f"{key}.") if dataclasses.is_dataclass(value) else [(key, value, item.metadata["doc"])]
    return rows
