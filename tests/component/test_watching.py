"""Following a folder: real files, a collection that answers from a dictionary, and a clock that tests own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ragworks.errors import ServerProblem, ServerUnreachable
from ragworks.feed import Failure, Tally
from ragworks.finding import Source
from ragworks.looking import FolderLook, noticing_changes
from ragworks.testing import FakeClock, until
from ragworks.watching import COMPARE_S, RETRY_S, FolderWatch


def hashed(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=32).hexdigest()


class FakeCollection:
    """What the watch asks of a client, and the submitting; names that hold ``bad`` fail, ``stopped`` are cancelled."""

    def __init__(self) -> None:
        self.documents_by_id: dict[str, dict[str, Any]] = {}
        self.submitted: list[list[str]] = []
        self.listings = 0
        self.down = 0
        self.on_change: Callable[[], None] = lambda: None

    def hold(self, name: str, content: str, origin: str | None) -> None:
        self.documents_by_id[name] = {"id": name, "content_hash": hashed(content), "origin": origin}
        self.on_change()

    @property
    def contents(self) -> set[str]:
        return {one["content_hash"] for one in self.documents_by_id.values()}

    async def documents(self, collection: str, origin: str | None = None) -> list[dict[str, Any]]:
        self.listings += 1
        if self.down:
            self.down -= 1
            raise ServerUnreachable("the server at http://fake cannot be reached")
        return [one for one in self.documents_by_id.values() if one["origin"] == origin]

    async def document(self, collection: str, document_id: str) -> dict[str, Any]:
        if document_id not in self.documents_by_id:
            raise ServerProblem("document_not_found", "there is none", 404)
        return self.documents_by_id[document_id]

    async def delete_document(self, collection: str, document_id: str) -> None:
        del self.documents_by_id[document_id]
        self.on_change()

    async def submit(self, sources: Sequence[Source]) -> Tally:
        self.submitted.append([one.name for one in sources])
        tally = Tally(total=len(sources))
        for one in sources:
            if "bad" in one.name:
                tally.failed.append(Failure(one.name, "corrupt_document", "it is broken"))
            elif "stopped" in one.name:
                tally.cancelled += 1
            else:
                tally.completed += 1
                self.hold(one.name, await asyncio.to_thread(one.path.read_text), one.origin)
        return tally


class Bench:
    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.clock, self.collection = folder, FakeClock(), FakeCollection()
        self.lines: list[str] = []
        self.news: asyncio.Event | None = None
        self.unnoticed = ""
        self.watch = FolderWatch(
            self.collection,  # type: ignore[arg-type]
            folder,
            "default",
            data_folder=data,
            submit=self.collection.submit,
            say=self.lines.append,
            clock=self.clock,
            noticing=self._noticing,
        )

    @property
    def origin(self) -> str:
        return self.watch.origin

    def write(self, **contents: str) -> None:
        for name, content in contents.items():
            (self.folder / f"{name}.md").write_text(content)

    def changed(self) -> None:
        """What the operating system would say now."""
        assert self.news is not None
        self.news.set()

    async def says(self, text: str) -> str:
        """The first line that holds ``text``, which is waited for while time passes."""
        for _ in range(20_000):
            if found := next((line for line in self.lines if text in line), None):
                return found
            await self.clock.advance(0.1)
        raise AssertionError(f"never said {text!r}, but {self.lines}")

    @asynccontextmanager
    async def _noticing(
        self, folder: Path, relevant: object, on_failure: Callable[[str], None]
    ) -> AsyncIterator[asyncio.Event]:
        self.news = asyncio.Event()
        if self.unnoticed:
            on_failure(self.unnoticed)
        try:
            yield self.news
        finally:
            self.news = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The watch, after its first comparison, unless that had to wait for the folder."""
        task = asyncio.create_task(self.watch.run(), name="watch")
        try:
            await self.says("")
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("ragworks.watching.LOOK_SHARE", 1)  # else the clock, which runs ahead, makes it rest
    (tmp_path / "docs").mkdir()
    return Bench(tmp_path / "docs", tmp_path / "docs" / "data")


async def test_what_changed_while_nobody_watched_is_made_up_for_and_the_rest_is_left_alone(bench: Bench) -> None:
    bench.write(same="1", changed="new 2", new="3")
    bench.collection.hold("same.md", "1", bench.origin)
    bench.collection.hold("changed.md", "old 2", bench.origin)
    bench.collection.hold("gone.md", "4", bench.origin)
    async with bench.running():
        assert bench.lines == [
            f"ingested {bench.folder}: 3 of 3 documents are in (1 unchanged, 0 failed), 1 gone; watching for changes"
        ]
    assert bench.collection.submitted == [["new.md", "changed.md"]]
    assert bench.collection.contents == {hashed("1"), hashed("new 2"), hashed("3")}


async def test_one_line_tells_each_set_of_changes(bench: Bench) -> None:
    bench.write(a="1", b="2")
    async with bench.running():
        bench.write(a="new 1", c="3", d="4")
        (bench.folder / "b.md").unlink()
        bench.changed()
        assert await bench.says("2 new") == f"{bench.folder}: 2 new, 1 changed, 1 gone"
    assert bench.collection.contents == {hashed("new 1"), hashed("3"), hashed("4")}
    assert bench.collection.listings == 1


async def test_during_a_rename_the_content_is_always_there_and_in_the_end_once(bench: Bench) -> None:
    bench.write(old="1")
    async with bench.running():
        seen: list[set[str]] = []
        bench.collection.on_change = lambda: seen.append(bench.collection.contents)
        (bench.folder / "old.md").rename(bench.folder / "new.md")
        bench.changed()
        await bench.says("1 new, 0 changed, 1 gone")
    assert seen == [{hashed("1")}, {hashed("1")}]
    assert list(bench.collection.documents_by_id) == ["new.md"]


async def test_a_renamed_folder_of_files_keeps_all_contents_all_the_time(bench: Bench) -> None:
    (bench.folder / "before").mkdir()
    contents = {str(at) for at in range(20)}
    for one in contents:
        (bench.folder / "before" / f"{one}.md").write_text(one)
    async with bench.running():
        losses: list[set[str]] = []
        bench.collection.on_change = lambda: losses.append(
            {hashed(one) for one in contents} - bench.collection.contents
        )
        (bench.folder / "before").rename(bench.folder / "after")
        bench.changed()
        await bench.says("20 new, 0 changed, 20 gone")
    assert len(losses) == 40
    assert not any(losses)
    assert all(name.startswith("after/") for name in bench.collection.documents_by_id)


async def test_a_renamed_file_that_does_not_go_in_leaves_the_document_of_its_former_name(bench: Bench) -> None:
    bench.write(a="1")
    async with bench.running():
        (bench.folder / "a.md").rename(bench.folder / "bad.xyz")
        bench.changed()
        await bench.says("a.md: its file is gone, and stays until the same bytes are in again")
        assert "a.md" in bench.collection.documents_by_id
        (bench.folder / "bad.xyz").unlink()
        bench.changed()
        await bench.says("0 new, 0 changed, 1 gone")
    assert bench.collection.documents_by_id == {}


async def test_a_file_that_is_being_written_is_taken_when_it_is_quiet(bench: Bench) -> None:
    async with bench.running():
        for content in ("a", "a be", "a begin"):
            bench.write(slow=content)
            bench.changed()
            await until(lambda: bench.news and not bench.news.is_set())
            await bench.clock.advance(0.5)
        assert bench.collection.submitted == []
        await bench.says("1 new")
    assert bench.collection.submitted == [["slow.md"]]
    assert bench.collection.contents == {hashed("a begin")}


async def test_a_copy_that_is_still_being_written_is_waited_for_before_what_it_copies_goes(bench: Bench) -> None:
    """Moved from another disk, a file is first gone here and quiet there a second later."""
    bench.write(old="1")
    async with bench.running():
        seen: list[set[str]] = []
        bench.collection.on_change = lambda: seen.append(bench.collection.contents)
        (bench.folder / "old.md").unlink()
        bench.write(new="1")
        bench.changed()
        await bench.says("1 new, 0 changed, 1 gone")
    assert seen == [{hashed("1")}, {hashed("1")}]
    assert list(bench.collection.documents_by_id) == ["new.md"]


async def test_a_file_that_is_never_quiet_holds_up_no_delete_for_long(bench: Bench) -> None:
    bench.write(a="1", b="2")
    async with bench.running():
        (bench.folder / "a.md").unlink()
        for at in range(10_000):
            bench.write(log="x" * at)
            bench.changed()
            await bench.clock.advance(0.5)
            if any("1 gone" in line for line in bench.lines):
                break
    assert bench.collection.contents == {hashed("2")}


async def test_a_folder_that_vanishes_takes_nothing_with_it_and_is_followed_again_when_it_is_back(bench: Bench) -> None:
    """An unmounted disk must not empty the collection."""
    bench.write(a="1", b="2")
    away = bench.folder.with_name("away")
    async with bench.running():
        bench.folder.rename(away)
        bench.changed()
        await bench.says("the folder is gone; its documents stay until it is back")
        for _ in range(5):
            await bench.clock.advance(RETRY_S)
        assert bench.collection.contents == {hashed("1"), hashed("2")}
        assert sum("is gone; its" in line for line in bench.lines) == 1
        away.rename(bench.folder)
        (bench.folder / "b.md").unlink()
        await bench.says("0 new, 0 changed, 1 gone")
    assert bench.collection.contents == {hashed("1")}


async def test_an_empty_folder_that_was_not_seen_with_files_deletes_nothing_until_it_holds_one(bench: Bench) -> None:
    """It is what an unmounted disk leaves at a start."""
    bench.collection.hold("a.md", "1", bench.origin)
    async with bench.running():
        await bench.says("the folder is empty, which it was not before")
        assert "a.md" in bench.collection.documents_by_id
        bench.write(b="2")
        bench.changed()
        await bench.says("1 gone")
    assert bench.collection.contents == {hashed("2")}


async def test_a_folder_that_is_replaced_by_an_empty_one_deletes_nothing(bench: Bench) -> None:
    bench.write(a="1")
    async with bench.running():
        bench.folder.rename(bench.folder.with_name("away"))
        bench.folder.mkdir()
        bench.changed()
        await bench.says("the folder is empty, which it was not before")
    assert bench.collection.contents == {hashed("1")}


async def test_a_folder_that_was_emptied_while_it_was_watched_is_believed(bench: Bench) -> None:
    bench.write(a="1")
    async with bench.running():
        (bench.folder / "a.md").unlink()
        bench.changed()
        await bench.says("0 new, 0 changed, 1 gone")
    assert bench.collection.documents_by_id == {}


async def test_what_lies_below_a_folder_that_cannot_be_listed_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, listing = bench.folder / "closed", os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    closed.mkdir()
    (closed / "in.md").write_text("1")
    bench.write(closedly="2", beside="3")
    async with bench.running():
        monkeypatch.setattr(os, "scandir", scandir)
        (bench.folder / "closedly.md").unlink()
        bench.changed()
        await bench.says("Permission denied")
        await bench.says("1 gone")
    assert sorted(bench.collection.documents_by_id) == ["beside.md", "closed/in.md"]


async def test_documents_that_came_another_way_are_never_deleted(bench: Bench) -> None:
    bench.collection.hold("by-hand.md", "1", None)
    bench.collection.hold("elsewhere.md", "2", "/another/folder")
    bench.write(taken="3", a="4")
    async with bench.running():
        bench.collection.hold("taken.md", "put by somebody else", None)
        (bench.folder / "taken.md").unlink()
        (bench.folder / "a.md").unlink()
        bench.changed()
        await bench.says("0 new, 0 changed, 1 gone")
    assert sorted(bench.collection.documents_by_id) == ["by-hand.md", "elsewhere.md", "taken.md"]


async def test_a_document_that_somebody_deleted_already_is_no_trouble(bench: Bench) -> None:
    bench.write(a="1", b="2")
    async with bench.running():
        del bench.collection.documents_by_id["a.md"]
        (bench.folder / "a.md").unlink()
        (bench.folder / "b.md").unlink()
        bench.changed()
        await bench.says("0 new, 0 changed, 1 gone")


async def test_hidden_temporary_and_partial_files_and_links_out_are_left_out(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("outside")
    for name in (".hidden.md", ".~lock.a.odt#", "~$a.docx", "a.md.swp", "a.md~", "b.PDF.part", "c.zip.crdownload"):
        (bench.folder / name).write_text(name)
    (bench.folder / ".git").mkdir()
    (bench.folder / ".git" / "config.md").write_text("x")
    (bench.folder / "data").mkdir()
    (bench.folder / "data" / "ragworks.db").write_text("ours")
    (bench.folder / "out.md").symlink_to(tmp_path / "secret.md")
    (bench.folder / "folder").symlink_to(tmp_path)
    bench.write(a="1")
    async with bench.running():
        await bench.says("a link out of the folder")
        await bench.says("links to folders are not followed")
    assert bench.collection.submitted == [["a.md"]]


async def test_a_document_whose_file_became_a_link_out_of_the_folder_goes(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("outside")
    bench.write(a="1", b="2")
    async with bench.running():
        (bench.folder / "a.md").unlink()
        (bench.folder / "a.md").symlink_to(tmp_path / "secret.md")
        bench.changed()
        await bench.says("0 new, 0 changed, 1 gone")
    assert bench.collection.contents == {hashed("2")}


async def test_names_that_no_document_can_have_are_cleaned_and_of_two_that_are_then_one_the_later_is_skipped(
    bench: Bench,
) -> None:
    (bench.folder / "a\x1b[31m.md").write_text("1")
    (bench.folder / "b\n.md").write_text("2")
    bench.write(b="3")
    async with bench.running():
        await bench.says("would be the same document as")
        assert sorted(bench.collection.documents_by_id) == ["a[31m.md", "b.md"]
        (bench.folder / "a\x1b[31m.md").unlink()
        bench.changed()
        await bench.says("1 gone")
    assert sorted(bench.collection.documents_by_id) == ["b.md"]


async def test_a_bad_file_is_one_line_and_is_tried_again_only_when_it_has_changed(bench: Bench) -> None:
    bench.write(bad="1")
    async with bench.running():
        for at in range(3):
            bench.write(**{f"good{at}": f"good {at}"})
            bench.changed()
            await until_in(bench, f"good{at}.md")
        assert sum("failed: bad.md: corrupt_document: it is broken" in line for line in bench.lines) == 1
        bench.write(bad="mended")
        bench.changed()
        await bench.says("0 new, 0 changed, 0 gone, 1 failed")
    assert [names for names in bench.collection.submitted if "bad.md" in names] == [["bad.md"], ["bad.md"]]


async def until_in(bench: Bench, name: str) -> None:
    while name not in bench.collection.documents_by_id:
        await bench.clock.advance(0.1)


async def test_what_somebody_cancelled_is_not_submitted_again(bench: Bench) -> None:
    bench.write(stopped="1", a="2")
    async with bench.running():
        bench.write(b="3")
        bench.changed()
        await until_in(bench, "b.md")
    assert [name for names in bench.collection.submitted for name in names] == ["a.md", "stopped.md", "b.md"]


async def test_a_file_that_cannot_be_read_is_one_line_and_its_document_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(a="1", b="2")
    opening = Path.open

    def refusing(path: Path, *given: Any, **more: Any) -> Any:
        if path.name == "a.md":
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *given, **more)

    async with bench.running():
        bench.write(a="new 1", b="new 2")
        monkeypatch.setattr(Path, "open", refusing)
        bench.changed()
        await bench.says("0 new, 1 changed, 0 gone")
        bench.write(b="newer 2")
        bench.changed()
        while hashed("newer 2") not in bench.collection.contents:
            await bench.clock.advance(0.1)
    assert sum("Permission denied" in line for line in bench.lines) == 1
    assert bench.collection.contents == {hashed("1"), hashed("newer 2")}


async def test_a_server_that_does_not_answer_is_said_once_and_the_watch_goes_on(bench: Bench) -> None:
    bench.write(a="1")
    bench.collection.down = 3
    async with bench.running():
        await bench.says("1 of 1 documents are in")
    assert [line for line in bench.lines if "server_unreachable" in line] == [
        f"{bench.folder}: server_unreachable: the server at http://fake cannot be reached"
    ]


async def test_where_changes_are_not_told_one_line_says_how_often_the_folder_is_compared(bench: Bench) -> None:
    bench.write(a="1")
    bench.unnoticed = "OS file watch limit reached."
    bench.collection.down = 2
    async with bench.running():
        await bench.says("1 of 1 documents are in")
    assert [line for line in bench.lines if "noticed" in line] == [
        f"{bench.folder}: changes are not noticed (OS file watch limit reached.); the folder is compared every 600 s"
    ]


async def test_a_fault_of_ours_in_one_look_is_a_line_and_not_the_end_of_the_watch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(a="1")
    look, failures = FolderLook.look, [ValueError("embedded null byte")]

    def failing(self: FolderLook, documents: dict[str, str]) -> Any:
        if failures:
            raise failures.pop()
        return look(self, documents)

    monkeypatch.setattr(FolderLook, "look", failing)
    async with bench.running():
        await bench.says("1 of 1 documents are in")
    assert f"{bench.folder}: ValueError: embedded null byte" in bench.lines


async def test_a_link_to_the_folder_that_is_turned_is_followed_to_where_it_leads(tmp_path: Path) -> None:
    """As deployments do it: current -> releases/42."""
    for release, content in (("one", "1"), ("two", "2")):
        (tmp_path / release).mkdir()
        (tmp_path / release / f"{release}.md").write_text(content)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "one")
    bench = Bench(link, tmp_path / "data")
    async with bench.running():
        assert bench.origin == str(link)
        link.unlink()
        link.symlink_to(tmp_path / "two")
        bench.changed()
        await bench.says("1 new, 0 changed, 1 gone")
    assert bench.collection.contents == {hashed("2")}


async def test_a_change_that_nobody_told_of_is_found_by_the_next_whole_comparison(bench: Bench) -> None:
    bench.write(a="1", b="2")
    async with bench.running():
        (bench.folder / "a.md").unlink()
        del bench.collection.documents_by_id["b.md"]
        await bench.clock.advance(COMPARE_S - 60)
        assert "a.md" in bench.collection.documents_by_id
        await bench.says("1 new, 0 changed, 1 gone")
    assert bench.collection.contents == {hashed("2")}


async def test_after_a_long_look_it_rests_so_that_looking_takes_a_tenth_of_a_core(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log in a large folder would otherwise have it walked all the time."""
    monkeypatch.setattr("ragworks.watching.LOOK_SHARE", 0.1)
    looks: list[float] = []
    look, gate = FolderLook.look, threading.Event()

    def held(self: FolderLook, documents: dict[str, str]) -> Any:
        looks.append(bench.clock.monotonic())
        gate.wait(30)
        return look(self, documents)

    async with bench.running():
        monkeypatch.setattr(FolderLook, "look", held)
        while len(looks) < 1:
            bench.changed()
            await bench.clock.advance(0.5)
        await bench.clock.advance(2)  # that is what this look takes
        gate.set()
        while len(looks) < 2:
            bench.changed()
            await bench.clock.advance(0.5)
    assert looks[1] - looks[0] >= 20


async def test_a_file_with_a_time_in_the_future_is_taken_all_the_same(bench: Bench) -> None:
    async with bench.running():
        bench.write(later="1")
        os.utime(bench.folder / "later.md", (4e9, 4e9))
        bench.changed()
        await bench.says("1 new")


@pytest.fixture
def lines() -> list[str]:
    return []


async def test_the_operating_system_tells_of_changes_below_and_only_of_those_that_matter(
    tmp_path: Path, lines: list[str]
) -> None:
    asked: list[str] = []

    def relevant(path: Path) -> bool:
        asked.append(path.name)
        return path.name == "a.md"

    (tmp_path / "deep").mkdir()
    async with noticing_changes(tmp_path, relevant, lines.append) as news:
        await asyncio.wait_for(news.wait(), 30)  # for what changed before anybody listened
        news.clear()
        (tmp_path / "deep" / "other.md").write_text("1")
        await until(lambda: "other.md" in asked)
        assert not news.is_set()
        (tmp_path / "deep" / "a.md").write_text("1")
        await asyncio.wait_for(news.wait(), 30)
    assert lines == []


async def test_a_folder_made_anew_in_the_place_of_a_deleted_one_is_listened_to(
    tmp_path: Path, lines: list[str]
) -> None:
    """It has often the inode of the one before, and was then taken for it: its files waited for ten minutes."""
    folder = tmp_path / "docs"
    folder.mkdir()
    asked: list[str] = []

    def relevant(path: Path) -> bool:
        asked.append(path.name)
        return True

    async with noticing_changes(folder, relevant, lines.append) as news:
        await asyncio.wait_for(news.wait(), 30)
        news.clear()
        folder.rmdir()
        await asyncio.wait_for(news.wait(), 30)
        news.clear()
        folder.mkdir()
        await asyncio.wait_for(news.wait(), 30)  # for what changed before anybody listened
        (folder / "a.md").write_text("1")
        await until(lambda: "a.md" in asked)
    assert lines == []


async def test_where_changes_are_not_told_somebody_says_so(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached.")

    monkeypatch.setattr("watchfiles.watch", refusing)
    async with noticing_changes(tmp_path, lambda path: True, lines.append) as news:
        await until(lambda: lines)
        assert not news.is_set()
    assert lines == ["OS file watch limit reached."]


def test_changes_of_the_data_folder_and_of_temporary_files_are_none(bench: Bench) -> None:
    def relevant(name: str) -> bool:
        return FolderLook(bench.folder, bench.folder / "data", bench.clock).relevant(bench.folder / name)

    assert relevant("a.md")
    assert relevant("deep/a.md")
    assert not relevant("data/ragworks.db-wal")
    assert not relevant(".git/index")
    assert not relevant("deep/~$a.docx")
