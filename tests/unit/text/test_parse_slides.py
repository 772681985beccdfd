from __future__ import annotations

import io
from typing import Any

import pptx
import pytest
from lxml import etree
from PIL import Image
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from documents import altered, entry, saved, slides
from ragworks.errors import CorruptDocument
from ragworks.text.parse_slides import parse_slides

DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"


def blank() -> tuple[Any, Any]:
    """A presentation, and its only slide, on which nothing stands."""
    made = pptx.Presentation()
    return made, made.slides.add_slide(made.slide_layouts[6])


def box(slide: Any, text: str, left: float = 0, top: float = 0, width: float = 2, height: float = 1) -> Any:
    made = slide.shapes.add_textbox(Inches(left), Inches(top), Inches(width), Inches(height))
    made.text_frame.text = text
    return made


def test_every_slide_is_a_page_under_its_title() -> None:
    parsed = parse_slides(slides(("Frame", ["Made of steel."]), ("Parts", ["Bell", "Lamp"]), title="Bike manual"))
    assert parsed.text.split("\n\n") == ["# Frame", "Made of steel.", "# Parts", "- Bell\n- Lamp"]
    assert [(section.page, section.headings) for section in parsed.sections] == [(1, ("Frame",)), (2, ("Parts",))]
    assert (parsed.title, parsed.pages) == ("Bike manual", 2)


def test_levels_and_numbers_of_lists_are_kept() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text = "Steps"
    frame = slide.placeholders[1].text_frame
    frame.text = "Unscrew"
    for text, level in (("the front", 1), ("the back", 1), ("Replace", 0)):
        paragraph = frame.add_paragraph()
        paragraph.text, paragraph.level = text, level
    for paragraph in frame.paragraphs:
        if not paragraph.level:
            etree.SubElement(paragraph._p.get_or_add_pPr(), f"{{{DRAWING}}}buAutoNum", type="arabicPeriod")
    assert parse_slides(saved(made)).text.split("\n\n")[1] == "1. Unscrew\n  - the front\n  - the back\n2. Replace"


def test_shapes_are_read_by_their_place_and_not_in_the_order_in_which_they_were_drawn() -> None:
    made, slide = blank()
    for text, left, top in (("four", 5, 4), ("two", 0, 4), ("three", 5, 1), ("one", 0, 1)):
        box(slide, text, left, top, height=2.9 if left else 2.5)
    slide.shapes.add_shape(1, 0, 0, Inches(10), Inches(7))
    assert parse_slides(saved(made)).text.split("\n\n") == ["one", "three", "two", "four"]


def test_groups_within_groups_are_read_where_they_stand() -> None:
    made, slide = blank()
    outer = slide.shapes.add_group_shape()
    inner = outer.shapes.add_group_shape()
    box(inner, "second", top=2)
    box(outer, "third", top=4)
    box(slide, "first")
    box(slide, "fourth", top=6)
    assert parse_slides(saved(made)).text.split("\n\n") == ["first", "second", "third", "fourth"]


def test_tables_become_markdown_with_merged_cells_read_once() -> None:
    made, slide = blank()
    table = slide.shapes.add_table(2, 3, 0, 0, Inches(6), Inches(2)).table
    for at, text in enumerate(("wide", "", "EUR", "Bell", "loud", "9")):
        table.cell(at // 3, at % 3).text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    parsed = parse_slides(saved(made))
    assert parsed.text == "| wide |  | EUR |\n| --- | --- | --- |\n| Bell | loud | 9 |"
    assert parsed.sections[0].kind == "table"


def test_notes_stand_below_their_slide() -> None:
    made, slide = blank()
    box(slide, "Shown")
    slide.notes_slide.notes_text_frame.text = "Say hello.\nSmile."
    assert parse_slides(saved(made)).text == "Shown\n\nNotes: Say hello.\nSmile."


def test_a_chart_tells_its_title_and_its_figures() -> None:
    made, slide = blank()
    data = CategoryChartData()
    data.categories = ["Bell", "Lamp"]
    data.add_series("2023", (9.0, 20.5))
    data.add_series("2024", (10, None))
    size = Inches(1), Inches(1), Inches(5), Inches(4)
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *size, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Prices"
    assert parse_slides(saved(made)).text == (
        "Prices\n\n|  | 2023 | 2024 |\n| --- | --- | --- |\n| Bell | 9 | 10 |\n| Lamp | 20.5 |  |"
    )


def test_date_footer_and_number_of_a_slide_are_left_out() -> None:
    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[5])
    slide.shapes.title.text = "Frame"
    for placeholder in made.slide_layouts[5].placeholders:
        if placeholder.placeholder_format.idx >= 10:
            slide.shapes._spTree.append(etree.fromstring(etree.tostring(placeholder._element)))
    for shape in slide.placeholders:
        shape.text_frame.text = shape.text_frame.text or "chrome"
    assert parse_slides(saved(made)).text == "# Frame"


def test_a_shape_that_is_stored_in_two_forms_is_read_once() -> None:
    made, slide = blank()
    shape = box(slide, "Energy is mass")._element
    xml = etree.tostring(shape).decode()
    mc = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    slide.shapes._spTree.replace(
        shape,
        etree.fromstring(
            f'<mc:AlternateContent xmlns:mc="{mc}"><mc:Choice Requires="a14">{xml}</mc:Choice>'
            f"<mc:Fallback>{xml}</mc:Fallback></mc:AlternateContent>"
        ),
    )
    assert parse_slides(saved(made)).text == "Energy is mass"


def test_a_picture_without_its_file_is_no_trouble() -> None:
    made, slide = blank()
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "PNG")
    picture = slide.shapes.add_picture(image, 0, 0)
    del picture._element.blipFill.find(f"{{{DRAWING}}}blip").attrib[
        "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}embed"
    ]
    box(slide, "Image test")
    assert parse_slides(saved(made)).text == "Image test"


def test_a_slide_show_is_read_like_a_presentation() -> None:
    data = slides(("Frame", ["Made of steel."]))
    types = entry(data, "[Content_Types].xml").decode()
    show = altered(data, {"[Content_Types].xml": types.replace("presentation.main+xml", "slideshow.main+xml")})
    assert "steel" in parse_slides(show).text


def test_a_slide_that_cannot_be_read_costs_that_slide() -> None:
    data = slides(("Frame", ["Made of steel."]), ("Parts", ["Nine euros."]))
    xml = entry(data, "ppt/slides/slide1.xml").decode()
    parsed = parse_slides(altered(data, {"ppt/slides/slide1.xml": xml.replace("p:cSld>", "p:other>")}))
    assert "steel" not in parsed.text
    assert "Nine euros." in parsed.text
    assert parsed.warnings[0].startswith("slide 1 cannot be read")


def test_a_chart_that_cannot_be_read_costs_that_chart() -> None:
    made, slide = blank()
    box(slide, "Kept")
    data = CategoryChartData()
    data.categories = ["Bell"]
    data.add_series("2023", (9.0,))
    size = Inches(1), Inches(3), Inches(5), Inches(4)
    part = slide.shapes.add_chart(XL_CHART_TYPE.PIE, *size, data).chart.part
    odd = {part.partname.lstrip("/"): part.blob.replace(b"c:pieChart", b"c:ofPieChart")}
    parsed = parse_slides(altered(saved(made), odd))
    assert parsed.text == "Kept"
    assert "on slide 1 cannot be read" in parsed.warnings[0]


def test_a_presentation_whose_inside_is_broken_says_so() -> None:
    with pytest.raises(CorruptDocument, match="presentation is broken"):
        parse_slides(altered(slides(("Frame", [])), {"ppt/presentation.xml": "<not closed"}))
