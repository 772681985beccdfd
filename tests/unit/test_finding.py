"""Which files a path means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ragworks.errors import InvalidInput
from ragworks.finding import find, look


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "docs"
    (place / "deep" / "er").mkdir(parents=True)
    for name in ("b.md", "a.md", "deep/er/c.md"):
        (place / name).write_text(name)
    return place


def names(paths, data="/nonexistent"):
    sources, skipped = find(paths, Path(data))
    return [one.name for one in sources], [(os.path.basename(one.path), one.reason) for one in skipped]


def test_a_folder_means_all_files_below_it_by_their_path_in_it(folder):
    assert names([folder]) == (["a.md", "b.md", "deep/er/c.md"], [])


def test_a_file_is_called_the_same_by_itself_and_in_its_folder(folder):
    assert names([folder / "a.md"]) == (["a.md"], [])
    assert names([folder / "a.md", folder]) == (["a.md", "b.md", "deep/er/c.md"], [])


def test_hidden_files_and_folders_are_left_out_without_a_word(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / ".hidden.md").write_text("x")
    assert names([folder])[0] == ["a.md", "b.md", "deep/er/c.md"]


@pytest.mark.parametrize(
    "name", [".~lock.a.odt#", "~$a.docx", "a.md.swp", "a.md~", "a.PDF.part", "a.zip.crdownload", "a.tmp"]
)
def test_what_programs_write_beside_a_file_is_left_out_without_a_word(folder, name):
    (folder / name).write_text("x")
    assert names([folder]) == (["a.md", "b.md", "deep/er/c.md"], [])


@pytest.mark.parametrize("name", ["part", "a.party.md", "~a.md", "a~b.md", "swp.md", "a.part.md"])
def test_a_name_that_only_looks_a_little_like_that_is_a_document(folder, name):
    (folder / name).write_text("x")
    assert name in names([folder])[0]


def test_a_file_of_a_folder_knows_the_folder_and_one_given_by_itself_knows_none(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    sources, _ = find([Path("docs/deep"), Path("docs/a.md")], Path("data"))
    assert {one.name: one.origin for one in sources} == {"er/c.md": str(folder / "deep"), "a.md": None}


def test_what_could_not_be_looked_at_is_told_from_what_is_no_document(folder, tmp_path, monkeypatch):
    (folder / "out.md").symlink_to(tmp_path)
    (folder / "broken.md").symlink_to(folder / "gone.md")
    listing = os.scandir

    def scandir(path):
        if Path(path) == folder / "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    skipped = look(folder, Path("data"))[1]
    assert {os.path.basename(one.path): one.unseen for one in skipped} == {
        "out.md": False,
        "broken.md": True,
        "deep": True,
    }


@pytest.mark.parametrize("way", [look, lambda folder, data: find([folder], data)])
def test_of_two_files_in_a_folder_that_would_be_one_document_the_first_is_taken(folder, way):
    """Such a pair once kept a whole folder out of `ragworks ingest`, with the advice to do what had been done."""
    (folder / "a\x07.md").write_text("x")
    sources, [skipped] = way(folder, Path("data"))
    assert [one.path.name for one in sources if one.name == "a.md"] == ["a\x07.md"]
    assert "would be the same document as" in skipped.reason


def test_the_data_folder_is_not_ingested_into_itself(folder):
    data = folder / "data"
    data.mkdir()
    (data / "ragworks.db").write_text("x")
    assert "data/ragworks.db" not in names([folder], data)[0]


def test_a_link_out_of_the_folder_is_not_followed_and_is_named(folder, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.md").symlink_to(folder / "a.md")
    found, skipped = names([folder])
    assert found == ["a.md", "b.md", "inside.md", "deep/er/c.md"]
    assert dict(skipped) == {
        "link.md": f"a link out of the folder, to {tmp_path / 'secret.md'}",
        "up": "a link to a folder; links to folders are not followed",
    }


def test_broken_links_loops_and_pipes_are_named_and_not_opened(folder):
    (folder / "broken.md").symlink_to(folder / "gone.md")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    os.mkfifo(folder / "pipe.md")
    found, skipped = names([folder])
    assert found == ["a.md", "b.md", "deep/er/c.md"]
    assert {name for name, _ in skipped} == {"broken.md", "loop.md", "pipe.md"}


def test_two_files_of_one_name_are_refused_before_anything_is_sent(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("another")
    with pytest.raises(InvalidInput, match=r"would both be the document 'a\.md'"):
        names([folder, other])
