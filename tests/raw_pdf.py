"""PDFs object by object, for what no library would write."""

from __future__ import annotations

import zlib

LINE = b"BT /F1 10 Tf 50 700 Td (The bell costs nine euros.) Tj ET\n"
FONTS = b"/Font<</F1 5 0 R>>"


def stream(data: bytes, entries: bytes = b"") -> bytes:
    packed = zlib.compress(data)
    return b"<</Length %d/Filter/FlateDecode%s>>\nstream\n%s\nendstream" % (len(packed), entries, packed)


def assembled(*objects: bytes) -> bytes:
    """Objects 1, 2, 3 ... with a table that finds them; the first is the catalog."""
    made, places = b"%PDF-1.7\n", list[int]()
    for number, body in enumerate(objects, start=1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    end = b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(made))
    return made + head + table + end


def one_page(
    content: bytes = LINE, *more: bytes, box: bytes = b"0 0 612 792", catalog: bytes = b"", resources: bytes = b""
) -> bytes:
    """A page with this content; ``more`` are objects 6, 7 and so on."""
    return assembled(
        b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog,
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R/Resources<<%s%s>>>>" % (box, FONTS, resources),
        stream(content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *more,
    )


def empty_pages(count: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % (number + 3) for number in range(count))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>"
    tree = b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count)
    return assembled(b"<</Type/Catalog/Pages 2 0 R>>", tree, *[page] * count)
