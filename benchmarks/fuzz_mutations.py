"""Real files made worse, as disks, networks, converters and attackers make them. Pure: bytes and rng in, bytes out."""

from __future__ import annotations

import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_BYTES = 4 * 1024**2  # of a mutated file
_NUMBER = re.compile(rb"\d+")
_ODD_NUMBERS = (b"0", b"-1", b"1", b"65536", b"2147483648", b"99999999999999999999")
_MARKED = re.compile(rb"<[^<>]{1,200}>|/[A-Za-z]{1,30}|\n")


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    data: bytes
    how: str


def mutant(rng: random.Random, sources: Sequence[Source]) -> Mutant:
    """One source, drawn the less often the larger it is, changed in one to three ways. Equal for equal rng states."""
    weights = [1 / (64 * 1024 + len(source.data)) for source in sources]
    source = rng.choices(sources, weights)[0]
    data, done = source.data, list[str]()
    for _ in range(rng.choice((1, 1, 2, 3))):
        inside = zipfile.is_zipfile(io.BytesIO(data)) and rng.random() < 0.7
        change = rng.choice(MUTATIONS)
        data = _in_member(rng, data, change, sources) if inside else change(rng, data, sources)
        done.append(("member " if inside else "") + change.__name__)
    name = source.name
    if rng.random() < 0.05:
        name = f"{name}.{rng.choice(sources).name.rsplit('.', 1)[-1]}"
        done.append("renamed")
    return Mutant(name, data[:MAX_BYTES], ", ".join(done))


def bits(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    """Up to 64 bits turned over."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 64) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_off(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def left_out(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    start, end = _block(rng, data)
    return data[:start] + data[end:]


def doubled(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    """A block again, up to a thousand times: nesting and length without end."""
    start, end = _block(rng, data)
    times = min(rng.choice((1, 2, 10, 1000)), MAX_BYTES // max(1, end - start))
    return data[:end] + data[start:end] * times + data[end:]


def swapped(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    first, second = sorted((_block(rng, data), _block(rng, data)))
    if first[1] > second[0]:
        return data[::-1] if rng.random() < 0.1 else data
    return b"".join(
        (data[: first[0]], data[slice(*second)], data[first[1] : second[0]], data[slice(*first)], data[second[1] :])
    )


def overwritten(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    start, end = _block(rng, data)
    filling = rng.choice((b"\0" * (end - start), b"\xff" * (end - start), rng.randbytes(end - start)))
    return data[:start] + filling + data[end:]


def spliced(rng: random.Random, data: bytes, sources: Sequence[Source]) -> bytes:
    """The beginning of this file and the end of another."""
    other = rng.choice(sources).data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def counted(rng: random.Random, data: bytes, _: Sequence[Source]) -> bytes:
    """Lengths, counts, sizes and references that are not right."""
    return _replaced(rng, data, _NUMBER, lambda: rng.choice(_ODD_NUMBERS))


def unmarked(rng: random.Random, data: bytes, sources: Sequence[Source]) -> bytes:
    """Tags and names taken out, or put where others were."""
    marks = _MARKED.findall(data[:100_000]) or [b""]
    return _replaced(rng, data, _MARKED, lambda: rng.choice((b"", rng.choice(marks))))


Change = Callable[[random.Random, bytes, Sequence[Source]], bytes]
MUTATIONS: tuple[Change, ...] = (
    bits, cut_off, left_out, doubled, swapped, overwritten, spliced, counted, unmarked,
)  # fmt: skip


def _block(rng: random.Random, data: bytes) -> tuple[int, int]:
    """Small blocks more often than large ones."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 16, 256, 4096, 65536)))


def _replaced(rng: random.Random, data: bytes, what: re.Pattern[bytes], by: Callable[[], bytes]) -> bytes:
    found = list(what.finditer(data[:1_000_000]))
    parts, at = list[bytes](), 0
    for one in sorted(rng.sample(found, min(len(found), rng.randint(1, 8))), key=lambda one: one.start()):
        parts += [data[at : one.start()], by()]
        at = one.end()
    return b"".join((*parts, data[at:]))


def _in_member(rng: random.Random, data: bytes, change: Change, sources: Sequence[Source]) -> bytes:
    """The archive with one of its parts changed, and checksums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # an archive that was broken before; a change on top of it is as good as any
        return change(rng, data, sources)
    if not parts:
        return data
    index = rng.randrange(len(parts))
    parts[index] = (parts[index][0], change(rng, parts[index][1], sources)[:MAX_BYTES])
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore", UserWarning)  # parts of the same name, which some files have
        for name, part in parts:
            made.writestr(name, part)
    return buffer.getvalue()
