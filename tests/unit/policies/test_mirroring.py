"""What makes a collection hold what a folder holds: pure, so stated as properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.mirroring import EVERYTHING, Plan, plan

# Few names and few contents, so that renames, copies, swaps and overwritten files come up all the time.
NAMES = st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/a", "dd"])
CONTENTS = st.sampled_from(["1", "2", "3"])
FILES = st.dictionaries(NAMES, st.one_of(st.none(), CONTENTS))
DOCUMENTS = st.dictionaries(NAMES, CONTENTS)
PLACES = st.sets(st.sampled_from(["d", "d/e", "a", "dd"]))
REFUSED = st.sets(NAMES)


@given(FILES, DOCUMENTS, PLACES, REFUSED)
def test_only_what_differs_is_submitted_and_only_what_has_no_file_goes(
    files: dict[str, str | None], documents: dict[str, str], unseen: set[str], refused: set[str]
) -> None:
    made = plan(files, documents, unseen=unseen, refused=refused)
    assert set(made.new) == {n for n in files if files[n] and n not in documents and n not in refused}
    assert set(made.changed) == {
        n for n in files if files[n] and n in documents and documents[n] != files[n] and n not in refused
    }
    assert set(made.moved) == {n for n in (*made.new, *made.changed) if files[n] in documents.values()}
    assert {*made.gone, *made.kept} <= documents.keys() - files.keys()
    assert not {*made.gone} & {*made.kept}


@given(FILES, DOCUMENTS, PLACES)
def test_a_document_whose_file_could_not_be_looked_at_stays(
    files: dict[str, str | None], documents: dict[str, str], unseen: set[str]
) -> None:
    gone = plan(files, documents, unseen=unseen).gone
    assert not [name for name in gone for place in unseen if name == place or name.startswith(f"{place}/")]


@given(FILES, DOCUMENTS, PLACES)
def test_a_folder_that_cannot_be_listed_deletes_nothing(
    files: dict[str, str | None], documents: dict[str, str], unseen: set[str]
) -> None:
    made = plan(files, documents, unseen={*unseen, EVERYTHING})
    assert made.gone == made.kept == ()


@given(FILES, DOCUMENTS, REFUSED)
def test_what_the_folder_and_the_collection_hold_stays_in_the_collection_whatever_is_deleted(
    files: dict[str, str | None], documents: dict[str, str], refused: set[str]
) -> None:
    gone = plan(files, documents, refused=refused).gone
    left = {content for name, content in documents.items() if name not in gone}
    assert set(files.values()) & set(documents.values()) <= left


@given(st.dictionaries(NAMES, CONTENTS), DOCUMENTS)
def test_followed_to_its_end_it_makes_the_two_equal_and_then_asks_for_nothing(
    files: dict[str, str | None], documents: dict[str, str]
) -> None:
    held = dict(documents)
    while names := (made := plan(files, held)).moved or (*made.new, *made.changed):
        held |= {name: str(files[name]) for name in names}
    for name in made.gone:
        del held[name]
    assert held == files
    assert plan(files, held) == Plan((), (), (), (), ())


def test_a_renamed_file_goes_in_before_its_former_name_goes() -> None:
    before = {"old": "1"}
    assert plan({"new": "1"}, before) == Plan(("new",), (), ("new",), (), ("old",))
    assert plan({"new": "1"}, {**before, "new": "1"}) == Plan((), (), (), ("old",), ())


def test_a_renamed_file_that_did_not_go_in_leaves_its_former_name() -> None:
    assert plan({"new.xyz": "1"}, {"old.md": "1"}, refused={"new.xyz"}).kept == ("old.md",)


def test_a_rotated_file_is_in_under_its_new_name_before_the_old_name_is_replaced() -> None:
    assert plan({"log": "2", "log.1": "1"}, {"log": "1"}).moved == ("log.1",)


def test_a_folder_of_a_like_name_is_not_below_one_that_cannot_be_listed() -> None:
    assert plan({}, {"d/a": "1", "dd": "1"}, unseen={"d"}).gone == ("dd",)
