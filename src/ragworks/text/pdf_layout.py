"""The Markdown of each page of a PDF by liteparse; a page whose columns it mixed is read again, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from liteparse import LiteParse

from ragworks.text.columns import Region, mixed, place_in, regions, torn

_MARGIN = 1.0  # points around a region; a run of text that is not entirely inside would be left out
_BATCH = 100  # pages read at a time: 500 at once took 290 MB and were no faster
Crop = tuple[float, float, float, float]
"""Shares of the page that are cut away: top, right, bottom, left."""


def marked_pages(data: bytes, plain: Sequence[str]) -> tuple[list[str], list[str]]:
    """Markdown of each page, empty where there is none that keeps the order, and the warnings.

    ``plain`` is the text of each page in the order in which it was written.
    """
    marked, warnings = [""] * len(plain), list[str]()
    mixes: dict[int, list[Crop]] = {}
    for first, last in _batches(len(plain)):
        try:
            result = _read(data, target_pages=f"{first}-{last}")
        except Exception as error:  # its errors have no common base; the plain text is there already
            warnings.append(f"pages {first} to {last}: no layout could be read, plain text was taken: {error}")
            continue
        warnings += [f"page {bad.page_num}: its layout cannot be read: {bad.message}" for bad in result.page_errors]
        for page in result.pages:
            written, read = place_in(plain[page.page_num - 1]), place_in(page.markdown)
            found = regions(page.text_items, written)
            if len(found) > 1 or not torn(page.text_items, written, read):
                marked[page.page_num - 1] = page.markdown
            if mixed(found, page.text_items, read):
                mixes[page.page_num] = [_crop(region, page.width, page.height) for region in found]
    for number, markdown in _by_region(data, mixes):
        marked[number - 1] = markdown
    return marked, warnings


def _batches(pages: int) -> Iterator[tuple[int, int]]:
    """First and last page of each: as few as may be, about equally long."""
    batches = -(-pages // _BATCH)
    for index in range(batches):
        yield index * pages // batches + 1, (index + 1) * pages // batches


def _read(data: bytes, **options: Any) -> Any:
    reader = LiteParse(
        ocr_enabled=False,
        output_format="markdown",
        quiet=True,
        image_mode="off",
        continue_on_page_error=True,
        extract_links=False,
        **options,
    )
    return reader.parse(data)


def _by_region(data: bytes, mixes: dict[int, list[Crop]]) -> Iterable[tuple[int, str]]:
    """Number and Markdown of these pages, region after region. Pages that are cut alike are read together."""
    alike: dict[Crop, list[int]] = {}
    for number, crops in mixes.items():
        for crop in crops:
            alike.setdefault(crop, []).append(number)
    read: dict[tuple[int, Crop], str] = {}
    for crop, numbers in alike.items():
        try:
            pages = _read(data, target_pages=",".join(map(str, numbers)), crop_box=crop).pages
        except Exception:  # as above; these pages keep the order they had
            continue
        read.update({(page.page_num, crop): page.markdown for page in pages})
    for number, crops in mixes.items():
        if all((number, crop) in read for crop in crops):
            yield number, "\n\n".join(read[number, crop] for crop in crops)


def _crop(region: Region, width: float, height: float) -> Crop:
    return (
        _share(region.top - _MARGIN, height),
        _share(width - region.right - _MARGIN, width),
        _share(height - region.bottom - _MARGIN, height),
        _share(region.left - _MARGIN, width),
    )


def _share(length: float, whole: float) -> float:
    return round(min(max(length / whole, 0.0), 1.0), 4) if whole > 0 else 0.0
