"""HTML to sections: the main content as Markdown-like text, without the chrome around it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ragworks.text.assemble import Kind, Piece, assemble
from ragworks.text.parse_markdown import Headings
from ragworks.text.tables import markdown_table
from ragworks.types import Parsed

_DROPPED = (
    "script, style, noscript, template, svg, canvas, iframe, object, nav, aside, button, input, select, textarea, "
    "dialog, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search], "
    "header ul, footer ul, .mw-editsection, .catlinks, .printfooter"
)
_PAGE_CHROME = "header, footer"
_OWN_CHROME = ":is(main, article, section) :is(header, footer)"  # the head and foot of a text, not of the page
_META = {
    "author": ("author",),
    "created": ("date", "article:published_time", "dc.date"),
    "modified": ("article:modified_time", "last-modified", "dc.date.modified"),
}
_BLOCKS = re.compile(
    r"address|article|blockquote|body|center|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|header|hgroup|hr"
    r"|legend|li|main|ol|p|section|summary|ul"
)
_HEADING = re.compile(r"h([1-6])$")
_SUBSTANTIAL = 200
_SPACES = re.compile(r"\s+")


def parse_html(source: str) -> Parsed:
    """Headings, paragraphs, lists, tables and code of the page, in order; the title is that of its head."""
    tree = LexborHTMLParser(source)
    title, properties = _title(tree), _properties(tree)
    for node in tree.css(_DROPPED):
        if node.parent is not None:
            node.decompose()
    body = _content(tree)
    pieces = _Walk().pieces(body) if body is not None else ()
    return assemble(pieces, "text/html", title=title, properties=properties)


def _title(tree: LexborHTMLParser) -> str | None:
    node = tree.css_first("head title") or tree.css_first("title")
    return (_squeezed(node.text()) or None) if node is not None else None


def _properties(tree: LexborHTMLParser) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, names in _META.items():
        for name in names:
            node = tree.css_first(f'meta[name="{name}"], meta[property="{name}"]')
            content = _squeezed(node.attributes.get("content") or "") if node is not None else ""
            if content:
                found.setdefault(key, content)
    return found


def _content(tree: LexborHTMLParser) -> LexborNode | None:
    """The main element, or the only article, when it holds real text; otherwise the whole body."""
    for selector in ("main", "[role=main]", "article"):
        nodes = tree.css(selector)
        if len(nodes) == 1 and len(_squeezed(nodes[0].text())) >= _SUBSTANTIAL:
            return nodes[0]
    own = {node.mem_id for node in tree.css(_OWN_CHROME)}
    for node in tree.css(_PAGE_CHROME):
        if node.mem_id not in own:
            node.decompose()
    return tree.body


class _Walk:
    """One pass over the tree with a stack of its own: real pages nest deeper than Python's stack."""

    def __init__(self) -> None:
        self._headings = Headings()
        self._words: list[str] = []
        self._lists: list[int | None] = []
        self._items: list[str] = []
        self._marker = ""

    def pieces(self, root: LexborNode) -> Iterator[Piece]:
        stack: list[tuple[LexborNode, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            tag = node.tag or ""
            if leaving:
                yield from self._leave(tag)
            elif tag == "-text":
                self._words.append(_SPACES.sub(" ", node.text_content or ""))
            elif tag == "br":
                self._words.append("\n")
            elif tag in ("table", "pre") or _HEADING.match(tag):
                yield from self._flush()
                yield from self._whole(node, tag)
            elif not tag.startswith(("-", "!")):
                yield from self._enter(node, tag)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(_children(node)))
        yield from self._flush()

    def _enter(self, node: LexborNode, tag: str) -> Iterator[Piece]:
        if _BLOCKS.fullmatch(tag):
            yield from self._flush()
        if tag in ("ul", "ol"):
            self._lists.append(_first_number(node) if tag == "ol" else None)
        elif tag == "li":
            self._marker = self._next_marker()

    def _leave(self, tag: str) -> Iterator[Piece]:
        if _BLOCKS.fullmatch(tag):
            yield from self._flush()
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            if not self._lists:
                yield from self._emit()

    def _next_marker(self) -> str:
        indent = "  " * max(0, len(self._lists) - 1)
        number = self._lists[-1] if self._lists else None
        if number is None:
            return f"{indent}- "
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _flush(self) -> Iterator[Piece]:
        text = "\n".join(_squeezed(line) for line in "".join(self._words).split("\n")).strip()
        self._words.clear()
        if text and self._lists:
            self._items.append((self._marker or "  " * len(self._lists)) + text)
            self._marker = ""
        elif text:
            yield from self._emit(text)

    def _whole(self, node: LexborNode, tag: str) -> Iterator[Piece]:
        heading = _HEADING.match(tag)
        if heading:
            name = _squeezed(node.text(separator=" ") if node.css_first("br") else node.text())
            if name:
                yield from self._emit()
                path = self._headings.enter(int(heading.group(1)), name)
                yield Piece(f"{'#' * int(heading.group(1))} {name}", path)
        elif tag == "pre":
            code = node.text().strip("\n")
            if code.strip():
                yield from self._emit(f"```\n{code}\n```", "code")
        else:
            yield from self._table(node)

    def _table(self, node: LexborNode) -> Iterator[Piece]:
        rows = [row for row in (_cells(tr) for tr in node.css("tr")) if any(row)]
        caption = node.css_first("caption")
        if caption is not None and _squeezed(caption.text()):
            yield from self._emit(_squeezed(caption.text()))
        if rows and max(len(row) for row in rows) > 1:
            yield from self._emit(markdown_table(rows), "table")
        else:
            # One column is a page's layout, not a table.
            for row in rows:
                yield from self._emit(" ".join(row))

    def _emit(self, text: str = "", kind: Kind = "prose") -> Iterator[Piece]:
        """The list that was being gathered, then ``text``."""
        items, self._items = "\n".join(self._items), []
        yield Piece(items, self._headings.path)
        yield Piece(text, self._headings.path, None, kind)


def _children(node: LexborNode) -> list[LexborNode]:
    return list(node.iter(include_text=True))


def _cells(row: LexborNode) -> list[str]:
    cells: list[str] = []
    for cell in row.iter():
        if cell.tag in ("td", "th"):
            span = cell.attributes.get("colspan") or "1"
            cells += [_squeezed(cell.text(separator=" "))] + [""] * (min(int(span), 50) - 1 if span.isdecimal() else 0)
    return cells


def _first_number(node: LexborNode) -> int:
    start = node.attributes.get("start") or "1"
    return int(start) if start.isdecimal() else 1


def _squeezed(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
