"""Fixtures, named after what they give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import strategies  # noqa: F401  # its profile: a busy machine may be slow in any test
from stores import Opened, opened


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data") as at:
        yield at
