"""Another implementation of a service: found by name, or refused with what is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ragworks import __version__
from ragworks.errors import InvalidSettings
from ragworks.implementations import Implementation, chosen
from ragworks.settings import Settings, load


class Mine:
    version = "2.1"


def wanting(name: str, **table: str) -> Settings:
    return load(environ={}, implementations=table, retrieval_service={"replicas": {"implementation": name}})


def test_the_default_carries_the_version_of_ragworks() -> None:
    assert chosen(Settings(), {"retrieval_service": dict}, {}) == {
        "retrieval_service": Implementation("default", dict, __version__)
    }


def test_one_is_found_in_the_table_of_the_settings() -> None:
    found = chosen(wanting("mine", mine="types:SimpleNamespace"), {"retrieval_service": dict}, {})
    assert found["retrieval_service"] == Implementation("mine", SimpleNamespace, "1")


def test_one_that_is_given_wins_and_says_its_version() -> None:
    found = chosen(wanting("mine", mine="no:thing"), {"retrieval_service": dict}, {"mine": Mine})
    assert found["retrieval_service"] == Implementation("mine", Mine, "2.1")


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("mime", {"mine": "a:b"}, r"found 'mime'; did you mean mine\?; register it in"),
        (
            "mine",
            {"mine": "no.such.module:make"},
            r"implementations\.mine cannot be imported from 'no\.such\.module:make'",
        ),
        ("mine", {"mine": "json:nothing"}, r"cannot be imported from 'json:nothing'"),
        ("mine", {"mine": "json:__name__"}, r"where factory can be called, found 'json:__name__'"),
        ("mine", {"mine": "json"}, r'must be "module:factory"'),
        ("default", {"default": "json:loads"}, r"implementations\.default is taken"),
    ],
)
def test_what_is_not_registered_or_cannot_be_made_is_refused(name: str, table: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        chosen(wanting(name, **table), {"retrieval_service": dict}, {})
