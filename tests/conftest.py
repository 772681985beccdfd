"""Fixtures, named after what they give."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import strategies  # noqa: F401  # its profile: a busy machine may be slow in any test
from stores import Opened, opened

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so would every server that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data") as at:
        yield at
