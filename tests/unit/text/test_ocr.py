from __future__ import annotations

import importlib.resources
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fpdf import FPDF
from PIL import Image, ImageOps

from documents import claims, drawn, picture, scan
from ragworks.errors import CorruptDocument, DocumentTooLarge, NoTextLayer
from ragworks.text import ocr
from ragworks.text.parse import parse

FACT = "The bell costs nine euros."


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "available", lambda: False)


@pytest.fixture
def fresh_engine() -> Iterator[None]:
    ocr._engine.cache_clear()
    yield
    ocr._engine.cache_clear()


def test_a_scanned_page_is_read_and_keeps_its_number() -> None:
    parsed = parse(scan(["The frame is made of steel."], [], [FACT]), "a.pdf")
    assert [(parsed.text[one.start : one.end], one.page) for one in parsed.sections] == [
        ("The frame is made of steel.", 1),
        (FACT, 3),
    ]
    assert (parsed.pages, parsed.warnings) == (3, ())


@pytest.mark.usefixtures("without_the_extra")
def test_a_scan_without_the_extra_says_what_to_install() -> None:
    with pytest.raises(NoTextLayer, match=r"2 pages but no text layer: install ragworks\[ocr\]"):
        parse(scan([FACT], [FACT]), "a.pdf")


@pytest.mark.usefixtures("without_the_extra")
def test_a_picture_without_the_extra_says_what_to_install() -> None:
    with pytest.raises(NoTextLayer, match=r"no text layer: install ragworks\[ocr\]"):
        parse(picture(FACT), "a.png")


def mixed() -> bytes:
    """Text, scan, blank, scan, scan."""
    made = FPDF()
    for number in range(1, 6):
        made.add_page()
        made.set_font("Helvetica", size=12)
        if number == 1:
            made.cell(text="The frame is made of steel.")
        elif number != 3:
            made.image(drawn(f"Scan {number}"), x=10, y=10, w=190)
    return bytes(made.output())


@pytest.mark.usefixtures("without_the_extra")
def test_pages_of_a_mixed_pdf_that_stay_unread_are_named() -> None:
    parsed = parse(mixed(), "a.pdf")
    assert parsed.text == "The frame is made of steel."
    assert parsed.warnings == ("pages 2, 4-5: no text layer: install ragworks[ocr]",)


def test_only_the_pages_without_text_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(ocr, "_recognised", lambda image: seen.append(image) or f"recognised {len(seen)}")
    parsed = parse(mixed(), "a.pdf")
    assert len(seen) == 3
    assert [one.page for one in parsed.sections] == [1, 2, 4, 5]


def test_each_picture_is_told_of_before_it_is_recognised() -> None:
    """The time limit of reading grows with the pages that take seconds each."""
    told: list[None] = []
    with ocr.on_recognised(lambda: told.append(None)):
        parse(scan([FACT], [FACT]), "scan.pdf")
    parse(scan([FACT]), "scan.pdf")
    assert len(told) == 2


def test_a_page_on_which_recognition_fails_costs_that_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: object) -> str:
        raise RuntimeError("no such shape")

    monkeypatch.setattr(ocr, "_recognised", fail)
    parsed = parse(mixed(), "a.pdf")
    assert parsed.text == "The frame is made of steel."
    assert parsed.warnings[0] == "page 2: not recognised: no such shape"


def test_letters_that_are_not_known_are_an_error_and_no_line_of_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SimpleNamespace(boxes=np.zeros((2, 4, 2)), txts=(" ,   , ", "."))
    monkeypatch.setattr(ocr, "_engine", lambda: lambda image: seen)
    with pytest.raises(NoTextLayer, match="knows Latin, Chinese and Japanese"):
        parse(picture(FACT), "a.png")


@pytest.mark.usefixtures("fresh_engine")
def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library downloads a model that it does not find; ours are those of its own wheel."""

    def refuse(*args: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert parse(picture(FACT), "a.png").text == FACT


@pytest.mark.usefixtures("fresh_engine")
def test_a_missing_model_is_an_error_and_no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ocr, "files", lambda package: tmp_path)
    with pytest.raises(NoTextLayer, match=r"PP-OCRv6_det_small.onnx is missing; install ragworks\[ocr\] again"):
        parse(picture(FACT), "a.png")


def test_the_models_are_in_the_wheel() -> None:
    inside = importlib.resources.files("rapidocr") / "models"
    assert all((inside / name).is_file() for name in ocr._MODELS.values())


def test_every_page_of_a_tiff_is_read() -> None:
    parsed = parse(picture(FACT, kind="TIFF", save_all=True, append_images=[drawn("Second page.")]), "a.tif")
    assert [(parsed.text[one.start : one.end], one.page) for one in parsed.sections] == [(FACT, 1), ("Second page.", 2)]


def test_a_picture_that_lies_on_its_side_is_turned_as_it_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = drawn(FACT).rotate(90, expand=True)
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert parse(buffer.getvalue(), "a.jpg").text == FACT


def test_black_on_transparent_is_read_as_on_paper() -> None:
    image = drawn(FACT).convert("L")
    letters = Image.new("RGBA", image.size, (0, 0, 0, 0))
    letters.putalpha(ImageOps.invert(image))
    buffer = io.BytesIO()
    letters.save(buffer, "PNG")
    assert parse(buffer.getvalue(), "a.png").text == FACT


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_picture_that_would_fill_the_memory_is_refused_undecoded(side: int) -> None:
    with pytest.raises(DocumentTooLarge, match="reduce it"):
        parse(claims(side, side), "a.png")


def test_a_broken_picture_says_so() -> None:
    whole = picture(FACT)
    with pytest.raises(CorruptDocument):
        parse(whole[: len(whole) // 2], "a.png")
    with pytest.raises(CorruptDocument, match="broken") as refused:
        parse(whole[:20] + bytes(20), "a.png")
    assert "BytesIO" not in str(refused.value)


@pytest.mark.parametrize(
    ("pages", "named"), [([4], "page 4"), ([1, 2], "pages 1-2"), ([1, 3, 4, 5, 9], "pages 1, 3-5, 9")]
)
def test_pages_are_named_in_runs(pages: list[int], named: str) -> None:
    assert ocr.numbered(pages) == named
