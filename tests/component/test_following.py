"""The indexes of a collection, and the end of them."""

from __future__ import annotations

from ragworks.services.following import Follower
from ragworks.storage.indexes import IndexFolder
from stores import DIMENSION, Opened, publish


async def test_who_is_late_for_a_collection_that_was_dropped_writes_nothing_any_more(storage: Opened) -> None:
    """A pass that began after the indexes were closed wrote into a folder that was gone, or already another's."""
    home = IndexFolder(storage.folder.path / "apart")
    follower = Follower("default", storage.rows, home.open("default", DIMENSION), storage.clock, 0)
    await follower.start()
    await follower.close(save=False)
    home.remove("default")
    await publish(storage, "late", "the battery")
    await follower.catch_up()
    assert list((storage.folder.path / "apart").iterdir()) == []
