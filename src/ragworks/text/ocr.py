"""Text recognition for pictures of text, when the extra ``ocr`` is there: one thread, its own models, no network.

The libraries are imported where they are used: they are an extra, and take a second to load.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from ragworks.errors import CorruptDocument, DocumentTooLarge, NoTextLayer
from ragworks.text.assemble import Piece, assemble
from ragworks.text.reading_order import Region, page_text
from ragworks.types import Parsed

ADVICE = "no text layer: install ragworks[ocr]"
SCRIPTS = "Latin, Chinese and Japanese"
MAX_PIXELS = 80_000_000  # A3 at 600 dpi has 70 million; decoded, 80 million take 240 MB
MAX_PAGES = 500
# What the recogniser looks at. A page of A4 at 2000 pixels has 171 dpi: letters of 8 points are 19 pixels high.
_SIDE = 2_000
_LARGEST_SCALE = 300 / 72  # small pages are not blown up beyond 300 dpi
_BLANK = 16  # levels of grey between the darkest and the lightest pixel of an empty page
_MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
_READABLE = re.compile(r"[^\W_]")


_told: ContextVar[Callable[[], None]] = ContextVar("recognised", default=lambda: None)


@contextmanager
def on_recognised(tell: Callable[[], None]) -> Iterator[None]:
    """Within the context, ``tell`` is called before each picture that is recognised, since each takes seconds."""
    before = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(before)


def available() -> bool:
    """Whether the extra is installed."""
    return find_spec("rapidocr") is not None


def parse_image(data: bytes, media_type: str) -> Parsed:
    """The text in a picture, or on every page of a TIFF. Raises NoTextLayer, CorruptDocument or DocumentTooLarge."""
    if not available():
        raise NoTextLayer(f"the image has {ADVICE} and submit it again")
    texts = [_recognised(frame) for frame in _frames(data)]
    several = len(texts) > 1
    pieces = (Piece(text, page=number if several else None) for number, text in enumerate(texts, start=1))
    return assemble(pieces, media_type, pages=len(texts) if several else None)


def recognised_pages(document: Any, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts of a PDF's pages with those filled in that are pictures, and warnings.

    A page that already has a letter or digit is taken to have its text, and one with nothing on it to be empty.
    """
    read = list(texts)
    bare = [at for at, text in enumerate(texts) if not _READABLE.search(text) and _shows_something(document, at)]
    if bare and not available():
        return read, [f"{numbered(at + 1 for at in bare)}: {ADVICE}"]
    found: list[str] = []
    if late := bare[MAX_PAGES:]:
        found.append(
            f"{numbered(at + 1 for at in late)}: not recognised: {MAX_PAGES} pages of a document are; split it"
        )
    for at in bare[:MAX_PAGES]:
        try:
            read[at] = _recognised(_rendered(document, at))
        except MemoryError:
            raise
        except Exception as error:  # whatever a page does to the recogniser costs that page
            found.append(f"page {at + 1}: not recognised: {error}")
    return read, found


def numbered(pages: Iterable[int]) -> str:
    """
    >>> numbered([1, 3, 4, 5])
    'pages 1, 3-5'
    """
    runs: list[list[int]] = []
    for page in pages:
        if runs and runs[-1][1] == page - 1:
            runs[-1][1] = page
        else:
            runs.append([page, page])
    named = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
    return f"{'page' if len(runs) == 1 and runs[0][0] == runs[0][1] else 'pages'} {named}"


def _shows_something(document: Any, at: int) -> bool:
    from pypdfium2 import PdfiumError

    try:
        page = document[at]
    except PdfiumError:  # a page that is not there shows nothing
        return False
    try:
        return next(iter(page.get_objects(max_depth=1)), None) is not None
    finally:
        page.close()


def _rendered(document: Any, at: int) -> Any:
    page = document[at]
    try:
        scale = min(_LARGEST_SCALE, _SIDE / max(*page.get_size(), 1))
        return page.render(scale=scale).to_pil()
    finally:
        page.close()


def _frames(data: bytes) -> Iterator[Any]:
    """The pages of a TIFF, or the picture (the first one, if it moves), upright, in colour and not too large."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
        try:
            image = Image.open(BytesIO(data))
        except Image.DecompressionBombError as error:
            raise DocumentTooLarge(f"the image is too large: {error}; reduce it and submit it again") from error
        except UnidentifiedImageError as error:  # whose words name an object in memory
            raise CorruptDocument("the image is broken and cannot be opened; export it anew") from error
        except OSError as error:
            raise CorruptDocument(f"the image is broken and cannot be opened: {error}") from error
        for number in range(MAX_PAGES if image.format == "TIFF" else 1):
            try:
                image.seek(number)
            except EOFError:
                return
            if image.width * image.height > MAX_PIXELS:
                raise DocumentTooLarge(
                    f"the image has {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read; reduce it"
                )
            yield _upright(image)


def _upright(image: Any) -> Any:
    from PIL import Image, ImageOps

    shown = ImageOps.exif_transpose(image)
    if "transparency" in shown.info or shown.mode in ("LA", "PA", "RGBA"):
        shown = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    shown = shown.convert("L" if shown.mode in ("1", "L") else "RGB")
    shown.thumbnail((_SIDE, _SIDE))
    return shown.convert("RGB")


def _recognised(image: Any) -> str:
    darkest, lightest = image.convert("L").getextrema()
    if lightest - darkest < _BLANK:
        return ""
    _told.get()()
    found = _engine()(image)
    if found.boxes is None or found.txts is None:
        return ""
    seen = [_region(box, text) for box, text in zip(found.boxes, found.txts, strict=True)]
    readable = [region for region in seen if _READABLE.search(region.text)]
    if len(readable) * 2 < len(seen):  # of other scripts it sees the commas
        raise NoTextLayer(f"text recognition cannot read these letters; it knows {SCRIPTS}")
    return page_text(readable)


def _region(box: Any, text: str) -> Region:
    (left, top), (right, bottom) = box.min(axis=0), box.max(axis=0)
    return Region(float(left), float(top), float(right), float(bottom), text)


@lru_cache(maxsize=1)
def _engine() -> Any:
    """One recogniser per process: loading takes a second."""
    import cv2
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    inside = files("rapidocr") / "models"
    paths = {stage: inside / name for stage, name in _MODELS.items()}
    for path in paths.values():  # without its file the library would try to download it
        if not path.is_file():
            raise NoTextLayer(f"the text recognition model {path} is missing; install ragworks[ocr] again")
    return RapidOCR(
        params={
            **{f"{stage}.model_path": str(path) for stage, path in paths.items()},
            "Global.use_cls": False,  # would turn lines that are upside down, at a tenth more time
            "Global.max_side_len": _SIDE,
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": 1280,  # where small print is still found; 2000 takes twice the time and memory
            "Rec.rec_batch_num": 1,  # a batch is padded to its longest line
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
