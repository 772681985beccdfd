"""How a verb of a service is found, and what its errors become, wherever the service lives."""

from __future__ import annotations

from typing import Any

from ragworks.errors import InvalidInput, RagworksError


def verb_of(service: Any, verb: str) -> Any:
    """The method of that name. Raises InvalidInput."""
    method = None if verb.startswith("_") else getattr(service, verb, None)
    if not callable(method):
        raise InvalidInput(f"{type(service).__name__} has no verb {verb!r}: a verb is a method with a public name")
    return method


def translated(error: Exception) -> RagworksError:
    """What a caller gets: an error of ours as it is, any other as a RagworksError that names it."""
    return error if isinstance(error, RagworksError) else RagworksError(f"{type(error).__name__}: {error}")
