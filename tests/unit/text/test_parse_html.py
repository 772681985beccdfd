from __future__ import annotations

from ragworks.text.parse_html import parse_html

LONG = "A sentence about bicycles that is long enough to count. " * 6


def test_the_chrome_of_a_page_is_left_out() -> None:
    page = """<title>Bikes &amp; more</title><header>Logo</header><nav>Home</nav><aside>Ad</aside><script>x()</script>
    <style>p{}</style><noscript>on!</noscript><template>t</template><svg><text>s</text></svg><div hidden>h</div>
    <form><p>Steel frames last.</p><button>Buy</button><input value="v"></form><footer>Imprint</footer>"""
    parsed = parse_html(page)
    assert parsed.text == "Steel frames last."
    assert parsed.title == "Bikes & more"


def test_the_main_element_is_taken_with_the_heading_in_its_header() -> None:
    parsed = parse_html(f"<div>Cookies?</div><main><header><h1>Frames</h1></header><p>{LONG}</p></main>")
    assert parsed.text == f"# Frames\n\n{LONG.strip()}"


def test_a_main_element_that_holds_next_to_nothing_is_no_reason_to_lose_the_page() -> None:
    assert "Real content" in parse_html("<main>Loading</main><div><p>Real content</p></div>").text


def test_headings_lists_tables_and_code_become_markdown() -> None:
    parsed = parse_html("""<body><h1>Top</h1><h2>Sub</h2><p>One<br>two  <b>three</b>.</p>
    <ul><li>a<ol start=3><li>b</li><li>c</li></ol></li><li><p>d</p><p>e</p></li></ul>
    <table><caption>Prices</caption><tr><th>Part<th>EUR<tr><td>Bell|ring<td>9</table><pre>if x:
    y</pre></body>""")
    assert parsed.text.split("\n\n") == [
        "# Top",
        "## Sub",
        "One\ntwo three.",
        "- a\n  3. b\n  4. c\n- d\n  e",
        "Prices",
        "| Part | EUR |\n| --- | --- |\n| Bell\\|ring | 9 |",
        "```\nif x:\n    y\n```",
    ]
    assert [(section.headings, section.kind) for section in parsed.sections] == [
        (("Top",), "prose"),
        (("Top", "Sub"), "prose"),
        (("Top", "Sub"), "table"),
        (("Top", "Sub"), "code"),
    ]


def test_a_table_of_one_column_is_layout_and_not_a_table() -> None:
    parsed = parse_html("<table><tr><td>First</td></tr><tr><td>Second</td></tr></table>")
    assert parsed.text == "First\n\nSecond"


def test_author_and_date_of_the_head_are_properties() -> None:
    page = '<meta name="author" content="Ann Lee"><meta property="article:published_time" content="2024-05-01"><p>x'
    assert parse_html(page).properties == {"author": "Ann Lee", "created": "2024-05-01"}


def test_nesting_deeper_than_the_stack_of_python_is_read() -> None:
    assert parse_html("<div>" * 5000 + "deep" + "</div>" * 5000).text == "deep"
