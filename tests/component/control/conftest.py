"""Fixtures, named after what they give."""

from __future__ import annotations

import pytest

from team import Team


@pytest.fixture
def trio() -> Team:
    return Team("abc")
