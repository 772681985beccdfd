"""Decisions as JSON, and the policies that made them, asked again.

Write a value with ``encoded``, read it back with ``decoded`` and the annotation that it had. What JSON cannot say is
said so: a float that is no number as "nan", "inf" or "-inf", a mapping whose keys are no strings as a list of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from random import Random
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ragworks.policies import admission, crowding, ejecting, health, holding, restarting, scaling

Json = Any

POLICIES: Mapping[str, Callable[..., Any]] = {
    "admission.decide": admission.decide,
    "crowding.turn": crowding.turn,
    "ejecting.judge": ejecting.judge,
    "health.judge": health.judge,
    "holding.hold": holding.hold,
    "restarting.decide": restarting.decide,
    "scaling.decide": scaling.decide,
}
"""Every policy whose decisions are events, by the name that events give. One that joins needs its row, and inputs in
``tests/unit/policies/test_replaying.py``."""

NOT_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a policy says when it is asked again. ``same`` is None when it cannot be asked, and ``reason`` says why."""

    same: bool | None
    decision: Json
    reason: str


def replay(policy: str, inputs: Mapping[str, Json]) -> Json:
    """The decision of ``policy`` on encoded ``inputs``, encoded.

    Raises ValueError when there is no such policy, or the inputs are not those it takes now.
    """
    if policy not in POLICIES:
        raise ValueError(f"there is no policy {policy!r} here; known: {', '.join(sorted(POLICIES))}")
    hints = _hints(POLICIES[policy])
    if unknown := set(inputs) - set(hints):
        raise ValueError(f"{policy} takes no {', '.join(sorted(unknown))}: another version recorded this")
    given = {name: decoded(hints[name], value) for name, value in inputs.items()}
    try:
        return encoded(POLICIES[policy](**given))
    except TypeError as error:
        raise ValueError(f"{policy} does not take these inputs: {error}") from error


def asked_again(policy: str, inputs: Mapping[str, Json], decision: Json) -> Replayed:
    """Whether ``policy`` still makes of ``inputs`` the ``decision`` that was recorded."""
    if not policy:
        return Replayed(None, None, "this happened; nothing decided it")
    try:
        found = replay(policy, inputs)
    except (ValueError, LookupError, ArithmeticError) as error:
        return Replayed(None, None, str(error))
    if found == decision:
        return Replayed(True, found, "the same decision")
    changed = [name for name in {**decision, **found} if decision.get(name) != found.get(name)]
    told = ", ".join(f"{name} {found.get(name)!r} where {decision.get(name)!r} was recorded" for name in changed)
    return Replayed(False, found, f"another decision: {told}")


def encoded(value: Any) -> Json:
    """``value`` as JSON. Raises ValueError for what has no form here: functions, arrays, a Random for its seed."""
    if isinstance(value, Enum):
        return encoded(value.value)
    if isinstance(value, str):
        # Half a surrogate pair, as in the name of a file that is no UTF-8, could be neither stored nor sent.
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: encoded(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {str(encoded(key)): encoded(one) for key, one in value.items()}
        return [[encoded(key), encoded(one)] for key, one in value.items()]
    if isinstance(value, Collection) and not isinstance(value, bytes):
        return [encoded(one) for one in value]
    raise ValueError(
        f"a recorded input must be data (dataclasses, enums, numbers, texts), found {type(value).__name__}"
    )


def decoded(annotation: Any, value: Json) -> Any:
    """What ``encoded`` made of a value annotated so. Raises ValueError when it cannot have been one.

    A Random is made from its seed. Of a union, the first member that fits is taken.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _first_that_fits(arguments, value)
    if origin is Literal:
        return _only(value in arguments, value, annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        return _dataclass(annotation, value)
    if annotation in _PLAIN:
        return _PLAIN[annotation](value)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation(value)
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return _mapping(arguments, value)
    if isinstance(kind, type) and issubclass(kind, Collection):
        return _collection(kind, arguments, _only(isinstance(value, list), value, annotation))
    raise ValueError(f"nothing here reads a {annotation}")


def _only(fits: bool, value: Json, annotation: Any) -> Any:
    if not fits:
        raise ValueError(f"expected {getattr(annotation, '__name__', annotation)}, found {value!r}")
    return value


def _float(value: Json) -> float:
    if isinstance(value, str) and value in NOT_NUMBERS:
        return NOT_NUMBERS[value]
    # A whole number that was passed stays one: it reads differently in a reason.
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return _only(fits, value, float)  # type: ignore[no-any-return]


_PLAIN: Mapping[Any, Callable[[Json], Any]] = {
    Any: lambda value: value,
    object: lambda value: value,
    None: lambda value: _only(value is None, value, None),
    NoneType: lambda value: _only(value is None, value, None),
    bool: lambda value: _only(isinstance(value, bool), value, bool),
    int: lambda value: _only(isinstance(value, int) and not isinstance(value, bool), value, int),
    str: lambda value: _only(isinstance(value, str), value, str),
    float: _float,
    Random: lambda value: Random(_only(isinstance(value, int), value, "the seed of a Random")),
}


@cache
def _hints(annotated: Any) -> dict[str, Any]:
    hints = get_type_hints(annotated)
    hints.pop("return", None)
    return hints


def _first_that_fits(members: tuple[Any, ...], value: Json) -> Any:
    for member in members:
        try:
            return decoded(member, value)
        except ValueError:
            continue
    raise ValueError(f"{value!r} is none of {', '.join(getattr(one, '__name__', str(one)) for one in members)}")


def _dataclass(kind: Any, value: Json) -> Any:
    _only(isinstance(value, dict), value, kind)
    hints = _hints(kind)
    if unknown := set(value) - {one.name for one in fields(kind)}:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    try:
        return kind(**{name: decoded(hints[name], one) for name, one in value.items()})
    except TypeError as error:
        raise ValueError(f"{kind.__name__} cannot be made of {', '.join(value) or 'nothing'}: {error}") from error


def _mapping(arguments: tuple[Any, ...], value: Json) -> dict[Any, Any]:
    keys, values = arguments or (Any, Any)
    pairs = value.items() if isinstance(value, dict) else _only(isinstance(value, list), value, dict)
    return {decoded(keys, key): decoded(values, one) for key, one in pairs}


def _collection(kind: type, arguments: tuple[Any, ...], value: list[Json]) -> Any:
    make = kind if kind in (list, set, frozenset) else tuple
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        _only(len(arguments) == len(value), value, kind)
        return tuple(decoded(one, item) for one, item in zip(arguments, value, strict=True))
    inner = arguments[0] if arguments else Any
    return make(decoded(inner, item) for item in value)
