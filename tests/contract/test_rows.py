"""What every storage_protocols.Rows promises, seen through the vector store that follows it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from ragworks.errors import (
    CollectionExists,
    CollectionNotFound,
    DocumentNotFound,
    InvalidInput,
    LeaseLost,
    ModelMismatch,
    UnusableFilter,
    VersionIncomplete,
)
from ragworks.records import CHUNK_BITS, Query
from ragworks.storage import documents
from ragworks.testing import until
from stores import DIMENSION, Opened, claimed, found, key_of, opened, publish, read, stage, vector

TEXT = "The battery of the city bike lasts five years. " * 4


async def test_a_published_document_is_found_by_word_and_by_vector(storage: Opened) -> None:
    await publish(storage, "bike", TEXT, pieces=2)
    half = TEXT[: len(TEXT) // 2]
    async with storage.store.view("default") as view:
        legs = await view.legs([Query(vector(half), "battery")], 10, None)
    assert set(legs.dense) == set(legs.lexical)
    assert max(legs.dense.values()) == pytest.approx(1.0, abs=1e-3)
    assert await found(storage, "batteries") == {"bike"}


async def test_nothing_of_a_staged_version_is_visible(storage: Opened) -> None:
    task = await claimed(storage, "bike", text=TEXT)
    await stage(storage, task, read(TEXT))
    assert await found(storage, "battery") == set()
    assert await storage.rows.document("default", "bike") is None


async def test_the_old_version_answers_until_the_new_one_is_published(storage: Opened) -> None:
    await publish(storage, "bike", "old words here")
    task = await claimed(storage, "bike", text="new words there")
    version = await stage(storage, task, read("new words there"))
    assert await found(storage, "old") == {"bike"}
    await storage.store.publish(task, version)
    assert await found(storage, "old") == set()
    assert await found(storage, "new") == {"bike"}
    assert (await storage.store.checkup()).healthy


async def test_publishing_without_a_lease_shows_nothing(storage: Opened) -> None:
    task = await claimed(storage, "bike", text=TEXT)
    version = await stage(storage, task, read(TEXT))
    await storage.jobs.recover()
    with pytest.raises(LeaseLost):
        await storage.store.publish(task, version)
    assert await storage.rows.document("default", "bike") is None


async def test_publishing_an_incomplete_version_shows_nothing(storage: Opened) -> None:
    task = await claimed(storage, "bike", text=TEXT)
    version = await storage.store.begin(task, read(TEXT, pieces=3), "model", DIMENSION)
    with pytest.raises(VersionIncomplete, match="0 of 3 chunks"):
        await storage.store.publish(task, version)


@pytest.mark.parametrize("gone", ["deleted", "replaced", "dropped", "deleted while it was staged"])
async def test_the_embedding_keys_of_what_is_gone_are_told_and_no_others(storage: Opened, gone: str) -> None:
    await publish(storage, "boat", "the boat has a keel")
    await storage.store.create_collection("trial")
    task = await claimed(storage, "bike", collection="trial", text="the old battery")
    version = await stage(storage, task, read("the old battery"))
    if gone != "deleted while it was staged":
        await storage.store.publish(task, version)
        await storage.jobs.finish(task, unchanged=False, warnings=())
    assert storage.forgotten == []
    if gone == "dropped":
        await storage.store.drop_collection("trial")
    elif gone == "replaced":
        task = await claimed(storage, "bike", collection="trial", text="the new motor")
        await storage.store.publish(task, await stage(storage, task, read("the new motor")))
    else:
        await storage.store.delete_document("trial", "bike")
        await storage.store.discard(version)
    assert storage.forgotten == [key_of("the old battery")]


async def test_the_vectors_of_a_failed_attempt_are_kept_for_the_next_one(storage: Opened) -> None:
    task = await claimed(storage, "bike", text="the battery")
    version = await stage(storage, task, read("the battery"))
    await storage.store.discard(version)
    assert storage.forgotten == []
    assert await storage.rows.abandoned() == []


async def test_keys_are_told_a_few_at_a_time(storage: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A book has thousands; dropping them all at once would hold up the event loop."""
    monkeypatch.setattr(documents, "BATCH", 3)
    told: list[int] = []
    task = await claimed(storage, "book", text=TEXT)
    version = await stage(storage, task, read(TEXT, pieces=8))
    await storage.rows.delete_document("default", "book")
    await storage.rows.collect(version, lambda keys: told.append(len(keys)))
    assert max(told) == 3
    assert sum(told) == 8


async def test_a_delete_removes_bytes_rows_vectors_and_words(storage: Opened) -> None:
    await publish(storage, "bike", TEXT, pieces=2)
    await publish(storage, "boat", "the boat has a keel")
    await storage.store.delete_document("default", "bike")
    after = await storage.store.checkup()
    assert (after.documents, after.chunks, after.vectors, after.words, after.blobs) == (1, 1, 1, 1, 1)
    assert after.healthy
    assert await found(storage, "battery") == set()
    assert not await storage.store.stored_vectors([TEXT[: len(TEXT) // 2].encode()[:16]])
    with pytest.raises(DocumentNotFound):
        await storage.store.delete_document("default", "bike")


async def test_a_delete_cancels_the_attempt_that_would_bring_the_document_back(storage: Opened) -> None:
    task = await claimed(storage, "bike", text=TEXT)
    version = await stage(storage, task, read(TEXT))
    await storage.store.delete_document("default", "bike")
    with pytest.raises(LeaseLost):
        await storage.store.publish(task, version)


async def test_documents_are_listed_by_the_folder_they_came_from(storage: Opened) -> None:
    for name, origin in (("a", "/srv/x"), ("b", None), ("c", "/srv/x"), ("d", "/srv/xy")):
        await publish(storage, name, f"text of {name}", origin=origin)
    first = await storage.store.documents("default", 1, None, "/srv/x")
    second = await storage.store.documents("default", 1, first.last_id, "/srv/x")
    assert [(one.id, one.origin) for one in (*first.data, *second.data)] == [("a", "/srv/x"), ("c", "/srv/x")]
    assert (first.has_more, second.has_more) == (True, False)
    assert len((await storage.store.documents("default", 9, None)).data) == 4


async def test_bytes_that_two_documents_share_stay_until_both_are_gone(storage: Opened) -> None:
    await publish(storage, "one", TEXT)
    await publish(storage, "two", TEXT)
    await storage.store.delete_document("default", "one")
    assert len(storage.blobs.hashes()) == 1
    await storage.store.delete_document("default", "two")
    assert storage.blobs.hashes() == set()


async def test_bytes_that_were_just_kept_again_survive_the_deletion_of_the_document_that_had_them(
    storage: Opened,
) -> None:
    await publish(storage, "one", TEXT)
    content_hash, _ = storage.blobs.put(TEXT.encode())
    await storage.store.delete_document("default", "one")
    assert storage.blobs.hashes() == {content_hash}
    storage.blobs.unpin([content_hash])
    await storage.store.forget_blobs([content_hash])
    assert storage.blobs.hashes() == set()


async def test_a_second_model_is_refused_with_the_names_of_both(storage: Opened) -> None:
    await publish(storage, "bike", TEXT)
    task = await claimed(storage, "boat", text="keel")
    with pytest.raises(ModelMismatch, match=r"model.*other"):
        await stage(storage, task, read("keel"), fingerprint="other")


async def test_a_dropped_collection_leaves_nothing_and_its_name_can_be_used_again(storage: Opened) -> None:
    await storage.store.create_collection("trial")
    with pytest.raises(CollectionExists):
        await storage.store.create_collection("trial")
    task = await claimed(storage, "bike", collection="trial", text=TEXT)
    await storage.store.publish(task, await stage(storage, task, read(TEXT)))
    assert await found(storage, "battery", collection="trial") == {"bike"}
    await storage.store.drop_collection("trial")
    with pytest.raises(CollectionNotFound):
        await storage.store.collection("trial")
    after = await storage.store.checkup()
    assert (after.chunks, after.words, after.blobs, after.problems) == (0, 0, 0, ())
    await storage.store.create_collection("trial")
    task = await claimed(storage, "boat", collection="trial", text="the keel of a boat")
    await storage.store.publish(task, await stage(storage, task, read("the keel of a boat")))
    assert await found(storage, "keel battery", collection="trial") == {"boat"}


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "a/b", "x" * 129])
async def test_a_collection_name_that_could_mean_a_path_is_refused(storage: Opened, name: str) -> None:
    with pytest.raises(InvalidInput, match="letters, digits"):
        await storage.store.create_collection(name)


FILTERS = [
    ({"type": "eq", "key": "year", "value": 2024}, {"b"}),
    ({"type": "ne", "key": "year", "value": 2024}, {"a", "c", "d"}),
    ({"type": "gt", "key": "year", "value": 2023}, {"b"}),
    ({"type": "lte", "key": "year", "value": 2023}, {"a"}),
    ({"type": "in", "key": "kind", "value": ["manual", "note"]}, {"a", "b"}),
    ({"type": "nin", "key": "kind", "value": ["manual"]}, {"b", "c", "d"}),
    ({"type": "gt", "key": "kind", "value": 5}, set()),
    ({"type": "eq", "key": "draft", "value": True}, {"d"}),
    (
        {
            "type": "or",
            "filters": [
                {"type": "eq", "key": "draft", "value": True},
                {
                    "type": "and",
                    "filters": [
                        {"type": "eq", "key": "year", "value": 2023},
                        {"type": "eq", "key": "kind", "value": "manual"},
                    ],
                },
            ],
        },
        {"a", "d"},
    ),
]


@pytest.mark.parametrize(("filter", "expected"), FILTERS)
async def test_filters_choose_by_metadata(storage: Opened, filter: dict, expected: set[str]) -> None:
    metadata = {
        "a": {"year": 2023, "kind": "manual"},
        "b": {"year": 2024, "kind": "note"},
        "c": {},
        "d": {"draft": True},
    }
    for name, fields in metadata.items():
        await publish(storage, name, f"battery of {name}", metadata=fields)
    assert await found(storage, "battery", filter) == expected
    async with storage.store.view("default") as view:
        assert len((await view.legs([Query(vector("x"), None)], 10, filter)).dense) == len(expected)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"type": "eq", "key": "language", "value": "de"}, {"a"}),
        ({"type": "in", "key": "language", "value": ["de", "fr"]}, {"a", "c"}),
        ({"type": "ne", "key": "language", "value": "de"}, {"b", "c"}),
        ({"type": "gte", "key": "created", "value": "2024"}, {"a", "b"}),
        ({"type": "gt", "key": "pages", "value": 2}, {"a"}),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "language", "value": "fr"},
                    {"type": "eq", "key": "team", "value": "x"},
                ],
            },
            {"c"},
        ),
    ],
)
async def test_filters_choose_by_properties_where_the_metadata_say_nothing(
    storage: Opened, filter: dict, expected: set[str]
) -> None:
    properties = {"language": "de", "created": "2024-01-03T08:38:26Z", "pages": 3}
    metadata = {"a": {"language": None}, "b": {"language": "en", "pages": 1}, "c": {"language": "fr", "team": "x"}}
    metadata["c"] |= {"created": "2023", "pages": "many"}
    for name, fields in metadata.items():
        await publish(storage, name, f"battery of {name}", metadata=fields, properties=properties)
    assert await found(storage, "battery", filter) == expected


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"type": "like", "key": "a", "value": 1},
        {"type": "eq", "key": "a"},
        {"type": "eq", "key": 'a"', "value": 1},
        {"type": "eq", "key": "a", "value": [1]},
        {"type": "in", "key": "a", "value": []},
        {"type": "and", "filters": []},
        {"type": "and", "filters": [3]},
        {"type": "eq", "key": "a", "value": 1, "more": 2},
        {"type": "eq", "key": "a", "value": 2**70},
        {"type": "eq", "key": "a\0b", "value": 1},
        {"type": "eq", "key": "a", "value": "\ud800"},
        {"type": "or", "filters": [{"type": "in", "key": "a", "value": list(range(500))}] * 3},
    ],
)
async def test_a_filter_that_means_nothing_is_refused(storage: Opened, filter: dict) -> None:
    await publish(storage, "bike", TEXT)
    with pytest.raises(UnusableFilter):
        await found(storage, "battery", filter)


async def test_an_index_survives_a_restart_and_one_that_is_lost_is_rebuilt(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        await publish(at, "bike", TEXT, pieces=3)
    async with opened(tmp_path) as at:
        assert at.store.stats()["indexes_rebuilt"] == 0
        assert await found(at, "battery") == {"bike"}
    for file in (tmp_path / "index").rglob("*.usearch"):
        file.write_bytes(b"not an index")
    async with opened(tmp_path) as at:
        assert await found(at, "battery") == {"bike"}
        assert (await at.store.checkup()).healthy


async def test_an_index_that_missed_changes_catches_up(tmp_path: Path) -> None:
    """As after kill -9: the rows are there, the saved index is older."""
    async with opened(tmp_path) as at:
        await publish(at, "bike", TEXT, pieces=3)
    saved = {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()}
    async with opened(tmp_path) as at:
        await publish(at, "boat", "the keel of a boat")
        await at.store.delete_document("default", "bike")
    for file in (tmp_path / "index").rglob("*"):
        if file.is_file():
            file.unlink()
    for file, data in saved.items():
        file.write_bytes(data)
    async with opened(tmp_path) as at:
        assert await found(at, "battery keel") == {"boat"}
        assert (await at.store.checkup()).healthy


async def test_doctor_names_what_differs(storage: Opened) -> None:
    await publish(storage, "bike", TEXT, pieces=3)
    await publish(storage, "boat", "the keel of a boat")
    await storage.database.write(
        lambda db: db.execute("DELETE FROM chunks WHERE id IN (SELECT id FROM chunks LIMIT 1)")
    )
    storage.blobs.remove(next(iter(storage.blobs.hashes())))
    problems = (await storage.store.checkup()).problems
    assert any("3 chunks expected, 2 found" in one for one in problems)
    assert any("vector index belong to no chunk" in one for one in problems)
    assert any("original bytes" in one for one in problems)


async def test_stored_vectors_are_found_by_key_while_a_live_chunk_holds_them(storage: Opened) -> None:
    await publish(storage, "boat", "the keel of a boat")
    key = b"the keel of a boat"[:16]
    held = await storage.store.stored_vectors([key, b"unknown"])
    assert set(held) == {key}
    assert np.allclose(held[key], vector("the keel of a boat"), atol=1e-3)


async def test_while_a_document_is_replaced_every_search_finds_one_version_of_it_whole(storage: Opened) -> None:
    """The rows switched at once and the index followed later: in between, updated documents could not be found."""
    pieces = 1200
    text = "".join(f"word{at:05d}  keel  " for at in range(pieces))
    await publish(storage, "boat", text, pieces=pieces)
    task = await claimed(storage, "boat", text=text + "x")
    version = await stage(storage, task, read(text, pieces))
    publishing = asyncio.ensure_future(storage.store.publish(task, version))
    seen = set()
    while not publishing.done():
        async with storage.store.view("default") as view:
            legs = await view.legs([Query(None, "keel")], 4 * pieces, None)
            rows = await view.chunks(list(legs.lexical))
            seen.add((len(rows), len({key >> CHUNK_BITS for key in rows})))
    await publishing
    assert seen == {(pieces, 1)}
    assert (await storage.store.checkup()).healthy


async def test_rows_of_a_version_stay_while_somebody_reads_it(storage: Opened) -> None:
    await publish(storage, "boat", "the old keel")
    async with storage.store.view("default") as view:
        legs = await view.legs([Query(None, "keel")], 10, None)
        task = await claimed(storage, "boat", text="the new keel")
        publishing = asyncio.ensure_future(
            storage.store.publish(task, await stage(storage, task, read("the new keel")))
        )
        await until(lambda: list(storage.store.stats()) and _shown(storage) != list(view.shown))
        assert [row.text for row in (await view.chunks(list(legs.lexical))).values()] == ["the old keel"]
    await publishing
    assert (await storage.store.checkup()).healthy


def _shown(at: Opened) -> list[int]:
    with at.store._followers["default"].reading() as shown:
        return list(shown)


async def test_a_stopped_attempt_stages_nothing_more(storage: Opened) -> None:
    task = await claimed(storage, "bike", text=TEXT)
    version = await storage.store.begin(task, read(TEXT), "model", DIMENSION)
    await storage.store.delete_document("default", "bike")
    with pytest.raises(LeaseLost):
        await storage.store.stage(version, next(iter(read(TEXT).parts)), [""], [b"k"], [vector(TEXT)])
    await storage.store.discard(version)
    assert (await storage.store.checkup()).healthy


async def test_the_default_collection_is_emptied_not_dropped(storage: Opened) -> None:
    await publish(storage, "bike", TEXT)
    await storage.store.drop_collection("default")
    assert await found(storage, "battery") == set()
    await publish(storage, "boat", "the keel")
    assert await found(storage, "keel battery") == {"boat"}
    assert (await storage.store.checkup()).healthy


async def test_index_folders_of_collections_that_are_gone_are_removed_at_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        await at.store.create_collection("trial")
        task = await claimed(at, "bike", collection="trial", text=TEXT)
        await at.store.publish(task, await stage(at, task, read(TEXT)))
        await at.rows.drop_collection("trial")  # and killed before the indexes are removed
    async with opened(tmp_path):
        assert [folder.name for folder in (tmp_path / "index").iterdir() if folder.name.startswith("trial")] == []


async def test_the_same_bytes_under_another_name_are_adopted_with_their_vectors(storage: Opened) -> None:
    """A file that was renamed must not be read and embedded again."""
    await publish(storage, "old.txt", TEXT, pieces=3)
    task = await claimed(storage, "new.txt", text=TEXT)
    adopted = await storage.store.adopt(task, "model")
    assert adopted is not None
    assert await storage.rows.document("default", "new.txt") is None
    await storage.store.publish(task, adopted.version)
    await storage.jobs.finish(task, unchanged=False, warnings=())
    await storage.store.delete_document("default", "old.txt")
    assert await found(storage, "battery") == {"new.txt"}
    assert await storage.store.text("default", "new.txt") == TEXT
    after = await storage.store.checkup()
    assert (after.documents, after.chunks, after.vectors, after.words, after.blobs) == (1, 3, 3, 3, 1)
    assert after.healthy


async def test_a_title_that_came_from_the_old_name_follows_the_new_one(storage: Opened) -> None:
    task = await claimed(storage, "city_bike.txt", text=TEXT)
    await storage.store.publish(task, await stage(storage, task, read(TEXT, title="city bike", title_from="name")))
    await storage.jobs.finish(task, unchanged=False, warnings=())
    moved = await claimed(storage, "town_bike.txt", text=TEXT)
    adopted = await storage.store.adopt(moved, "model")
    assert adopted is not None
    await storage.store.publish(moved, adopted.version)
    assert (await storage.store.document("default", "town_bike.txt")).title == "town bike"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bike.md", {}),  # would be read as Markdown
        ("bike", {}),
        ("other.txt", {"title": "Given"}),  # the title is part of what is embedded
        ("other.txt", {"media_type": "text/markdown"}),
    ],
)
async def test_bytes_that_would_be_read_otherwise_are_not_adopted(
    storage: Opened, name: str, fields: dict[str, str]
) -> None:
    await publish(storage, "bike.txt", TEXT)
    assert await storage.store.adopt(await claimed(storage, name, text=TEXT, **fields), "model") is None


async def test_a_title_that_was_given_to_one_document_is_not_lent_to_another(storage: Opened) -> None:
    task = await claimed(storage, "bike.txt", text=TEXT, title="Mine")
    await storage.store.publish(task, await stage(storage, task, read(TEXT, title="Mine", title_from="submission")))
    assert await storage.store.adopt(await claimed(storage, "other.txt", text=TEXT), "model") is None


async def test_vectors_of_another_model_and_collection_are_not_adopted(storage: Opened) -> None:
    await storage.store.create_collection("other")
    await publish(storage, "bike.txt", TEXT)
    assert await storage.store.adopt(await claimed(storage, "a.txt", text=TEXT, collection="other"), "model") is None
    assert await storage.store.adopt(await claimed(storage, "b.txt", text=TEXT), "another model") is None


async def test_an_adopted_version_whose_source_went_away_half_way_is_never_shown(storage: Opened) -> None:
    await publish(storage, "bike.txt", TEXT, pieces=3)
    task = await claimed(storage, "new.txt", text=TEXT)
    adopted = await storage.rows.adopt(task, "model")
    assert adopted is not None
    await storage.store.delete_document("default", "bike.txt")
    await storage.rows.copy(adopted)
    with pytest.raises(VersionIncomplete, match="0 of 3 chunks"):
        await storage.store.publish(task, adopted.version)


async def test_of_the_changes_only_those_that_an_empty_index_needs_are_kept(storage: Opened) -> None:
    """They used to grow for ever, and a rebuilt index went through all of them."""
    for text in ("the keel", "the mast"):
        await publish(storage, "boat", text)
    await publish(storage, "bike", "the battery")
    await storage.store.delete_document("default", "bike")
    visible = await storage.rows.visible("default")
    await storage.rows.prune("default", visible.seq)
    kept = await storage.rows.changes("default", 0, 100)
    assert [(one.version, one.added) for one in kept[:-1]] == [(version, True) for version in visible.versions]
    assert kept[-1].seq == visible.seq
    assert await storage.rows.visible("default") == visible


async def test_an_index_that_was_saved_prunes_its_changes_and_is_made_anew_from_the_rest(tmp_path: Path) -> None:
    for text in ("the keel", "the mast", "the rudder"):
        async with opened(tmp_path) as at:
            await publish(at, "boat", text)
    async with opened(tmp_path) as at:
        assert [one.added for one in await at.rows.changes("default", 0, 100)] == [True]
    rmtree(tmp_path / "index")
    async with opened(tmp_path) as at:
        assert await found(at, "keel rudder") == {"boat"}
        assert (await at.store.checkup()).problems == ()
