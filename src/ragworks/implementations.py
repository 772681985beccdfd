"""Which code runs a service: the default, or what the settings name instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ragworks import __version__
from ragworks.errors import InvalidSettings
from ragworks.settings import Settings
from ragworks.settings_sources import nearest

Factory = Callable[..., Any]
"""Makes a service, or the engine behind it, from the arguments that the default's factory takes."""

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Implementation:
    """``version`` is the factory's attribute of that name, or ragworks' own version; replicas carry both names."""

    name: str
    factory: Factory
    version: str


def chosen(
    settings: Settings, defaults: Mapping[str, Factory], given: Mapping[str, Factory]
) -> dict[str, Implementation]:
    """The implementation of each service in ``defaults``. ``given`` factories are registered beside those of the
    table ``[implementations]``, and win. Raises InvalidSettings."""
    known: dict[str, Factory | str] = {**settings.implementations, **given}
    if DEFAULT in known:
        raise InvalidSettings("implementations.default is taken: it means the code of ragworks; choose another name")
    return {service: _of(service, settings, default, known) for service, default in defaults.items()}


def _of(service: str, settings: Settings, default: Factory, known: Mapping[str, Factory | str]) -> Implementation:
    name = settings.replicas(service).implementation
    if name == DEFAULT:
        return Implementation(DEFAULT, default, __version__)
    if name not in known:
        raise InvalidSettings(
            f"{service}.replicas.implementation must be one of {', '.join([DEFAULT, *known])}, found {name!r}"
            f'{nearest(name, known)}; register it in [implementations] as {name} = "module:factory", or where '
            "ragworks is opened from Python"
        )
    found = known[name]
    factory = _imported(f"implementations.{name}", found) if isinstance(found, str) else found
    return Implementation(name, factory, str(getattr(factory, "version", "1")))


def _imported(key: str, path: str) -> Factory:
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name) if module and name else None
    except (ImportError, AttributeError) as error:
        raise InvalidSettings(f"{key} cannot be imported from {path!r}: {error}") from error
    if not callable(found):
        raise InvalidSettings(f'{key} must be "module:factory", where factory can be called, found {path!r}')
    factory: Factory = found
    return factory
