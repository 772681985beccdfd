from __future__ import annotations

import pytest

from documents import altered, book, entry
from ragworks.errors import CorruptDocument, EncryptedDocument
from ragworks.text.parse_epub import parse_epub

CHAPTERS = {"one": "<h1>Frame</h1><p>Steel.</p>", "two": "<p>Nine euros.</p>", "three": "<p>Every spring.</p>"}
NAV = (
    '<html xmlns:epub="http://www.idpf.org/2007/ops"><nav epub:type="landmarks"><ol><li><a href="two.xhtml">no</a></li>'
    '</ol></nav><nav epub:type="toc"><ol><li><span>Part I</span><ol><li><a href="one.xhtml">The frame</a></li>'
    '<li><a href="two.xhtml#a">Prices</a></li></ol></li></ol></nav></html>'
)
NCX = (
    "<ncx><navMap><navPoint><navLabel><text>Part I</text></navLabel><content src=''/>"
    "<navPoint><navLabel><text>The frame</text></navLabel><content src='one.xhtml'/></navPoint>"
    "<navPoint><navLabel><text>Prices</text></navLabel><content src='two.xhtml#a'/></navPoint>"
    "</navPoint></navMap></ncx>"
)


def outline(data: bytes) -> list[tuple[tuple[str, ...], str]]:
    parsed = parse_epub(data)
    return [(section.headings, parsed.text[section.start : section.end]) for section in parsed.sections]


@pytest.mark.parametrize(
    "data",
    [
        book(CHAPTERS, manifest='<item id="n" href="nav.xhtml" properties="nav"/>', **{"OPS_nav.xhtml": NAV}),
        book(
            CHAPTERS,
            manifest='<item id="n" href="toc.ncx" media-type="application/x-dtbncx+xml"/>',
            **{"OPS_toc.ncx": NCX},
        ),
    ],
    ids=["nav", "ncx"],
)
def test_chapters_are_in_order_under_the_names_that_the_table_of_contents_gives(data: bytes) -> None:
    """A chapter without a name of its own goes on with the one before: programs cut long chapters into files."""
    assert outline(data) == [
        (("Part I", "Frame"), "# Frame\n\nSteel."),
        (("Part I", "Prices"), "Nine euros.\n\nEvery spring."),
    ]


def test_without_a_table_of_contents_headings_will_do() -> None:
    assert outline(book(CHAPTERS))[0] == (("Frame",), "# Frame\n\nSteel.")


def test_the_table_of_contents_itself_is_no_chapter() -> None:
    data = book({"nav": NAV, **CHAPTERS})
    package = '<package><manifest>{}</manifest><spine><itemref idref="nav"/><itemref idref="one"/></spine></package>'
    items = '<item id="nav" href="nav.xhtml" properties="nav"/><item id="one" href="one.xhtml"/>'
    assert "Prices" not in parse_epub(altered(data, {"OPS/book.opf": package.format(items)})).text


def test_title_author_language_and_date_are_those_of_the_book() -> None:
    about = (
        "<dc:title>Bikes</dc:title><dc:creator>Ann Lee</dc:creator><dc:language>en</dc:language><dc:date>2024</dc:date>"
    )
    parsed = parse_epub(book(CHAPTERS, metadata=about))
    assert parsed.title == "Bikes"
    assert parsed.properties == {"author": "Ann Lee", "language": "en", "created": "2024"}


def test_notes_and_the_heads_of_chapters_are_text() -> None:
    body = "<header><h1>Frame</h1></header><p>Steel.<a/></p><aside epub:type='footnote'>Or brass.</aside>"
    assert parse_epub(book({"a": body})).text == "# Frame\n\nSteel.\n\nOr brass."


def test_an_element_that_closes_itself_swallows_nothing() -> None:
    """HTML takes <title/> for the beginning of a title that lasts to the end of the file."""
    chapter = "<html><head/><body><script src='x'/><title/><p>Steel.</p><iframe/><p>Brass.</p></body></html>"
    assert parse_epub(altered(book({"a": ""}), {"OPS/a.xhtml": chapter})).text == "Steel.\n\nBrass."


def test_a_missing_chapter_costs_that_chapter() -> None:
    parsed = parse_epub(altered(book(CHAPTERS), {}, "OPS/two.xhtml"))
    assert "Every spring." in parsed.text
    assert parsed.warnings == ("the chapter 'OPS/two.xhtml' was left out: it is missing",)


def test_a_missing_table_of_contents_costs_its_names() -> None:
    parsed = parse_epub(book(CHAPTERS, manifest='<item id="n" href="nav.xhtml" properties="nav"/>'))
    assert "Steel." in parsed.text
    assert "table of contents" in parsed.warnings[0]


def test_a_book_whose_chapters_are_all_missing_is_broken() -> None:
    with pytest.raises(CorruptDocument, match="is missing"):
        parse_epub(altered(book({"one": ""}), {}, "OPS/one.xhtml"))


def test_a_book_without_a_package_is_broken() -> None:
    with pytest.raises(CorruptDocument, match="nothing says which parts"):
        parse_epub(altered(book(CHAPTERS), {}, "OPS/book.opf"))


def listing(name: str) -> str:
    return f"<encryption><EncryptedData><CipherReference URI='{name}'/></EncryptedData></encryption>"


def test_a_book_that_is_locked_says_so() -> None:
    with pytest.raises(EncryptedDocument, match="DRM"):
        parse_epub(book(CHAPTERS, **{"META-INF_encryption.xml": listing("OPS/one.xhtml")}))


def test_a_book_whose_fonts_are_garbled_is_read() -> None:
    assert "Steel." in parse_epub(book(CHAPTERS, **{"META-INF_encryption.xml": listing("OPS/fonts/a.ttf")})).text


def test_names_in_links_may_be_quoted_and_lead_up() -> None:
    package = (
        '<package><manifest><item id="a" href="../text/a%20b.xhtml"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    data = altered(book({"x": ""}), {"OPS/book.opf": package, "text/a b.xhtml": "<p>Found.</p>"})
    assert parse_epub(data).text == "Found."


def test_a_link_out_of_the_book_leads_nowhere() -> None:
    package = (
        '<package><manifest><item id="a" href="../../../../etc/passwd"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    with pytest.raises(CorruptDocument, match="is missing"):
        parse_epub(altered(book({"x": ""}), {"OPS/book.opf": package}))


def test_a_chapter_that_the_spine_names_again_and_again_is_read_once() -> None:
    package = '<package><manifest><item id="a" href="a.xhtml"/></manifest><spine>{}</spine></package>'
    data = altered(book({"a": "<p>Once.</p>"}), {"OPS/book.opf": package.format('<itemref idref="a"/>' * 10_000)})
    assert parse_epub(data).text == "Once."


@pytest.mark.parametrize("name", ["OPS/book.opf", "META-INF/container.xml", "OPS/a.xhtml"])
def test_entities_neither_multiply_nor_fetch_anything(name: str) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    doctype = f'<!DOCTYPE x [{entities}<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    data = book({"a": "<p>Kept &e11; &file;</p>"}, metadata="<dc:title>T &e11; &file;</dc:title>")
    xml = entry(data, name).decode()
    declared = xml.replace("?>", f"?>{doctype}", 1) if "?>" in xml else doctype + xml
    try:
        parsed = parse_epub(altered(data, {name: declared}))
    except CorruptDocument:
        return
    told = f"{parsed.text} {parsed.title}"
    assert "root:" not in told
    assert "lollol" not in told
