"""Compound files (MS-CFB, version 3), made on the spot: what Outlook messages and old office documents are."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

SECTOR, MINI, CUTOFF = 512, 64, 4096
END, FREE, FAT, NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF
Path = tuple[str, ...]


def compound(streams: Mapping[Path, bytes]) -> bytes:
    """A compound file with these streams; the folders that their paths name come by themselves."""
    paths: list[Path] = sorted({path[:cut] for path in streams for cut in range(1, len(path) + 1)})
    small = {path: data for path, data in streams.items() if len(data) < CUTOFF}
    big = {path: data for path, data in streams.items() if len(data) >= CUTOFF}
    mini_starts, mini_chain, mini_stream = _laid_out(small, MINI)
    parts = [bytes(128 * -(-(len(paths) + 1) // 4) * 4), _words(mini_chain), mini_stream, *big.values()]
    counts = [-(-len(part) // SECTOR) for part in parts]
    fats = 1
    while fats * (SECTOR // 4) < fats + sum(counts):
        fats += 1
    starts = [fats + sum(counts[:index]) for index in range(len(counts))]
    fat = [FAT] * fats
    for start, count in zip(starts, counts, strict=True):
        fat += [start + at + 1 for at in range(count - 1)] + [END] * (count > 0)
    fat += [FREE] * (fats * (SECTOR // 4) - len(fat))
    begins = {**mini_starts, **dict(zip(big, starts[3:], strict=True))}
    parts[0] = _directory(paths, streams, begins, starts[2] if mini_stream else END, len(mini_stream))
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6xII", 0x3E, 3, 0xFFFE, 9, 6, 0, fats)
    header += struct.pack("<III", starts[0], 0, CUTOFF)
    header += struct.pack("<IIII", starts[1] if mini_chain else END, counts[1], END, 0)
    header += _words([*range(fats), *[FREE] * (109 - fats)])
    return header + b"".join(_padded(part, SECTOR) for part in [_words(fat), *parts])


def _laid_out(streams: Mapping[Path, bytes], size: int) -> tuple[dict[Path, int], list[int], bytes]:
    starts: dict[Path, int] = {}
    chain: list[int] = []
    data = b""
    for path, stream in streams.items():
        count = -(-len(stream) // size)
        starts[path] = len(chain) if count else END
        chain += [len(chain) + at + 1 for at in range(count - 1)] + [END] * (count > 0)
        data += _padded(stream, size)
    return starts, chain, data


def _directory(
    paths: Sequence[Path], streams: Mapping[Path, bytes], begins: Mapping[Path, int], mini: int, mini_size: int
) -> bytes:
    number = {path: index for index, path in enumerate(paths, start=1)}
    entries = [_entry("Root Entry", 5, NONE, _first_child((), paths, number), mini, mini_size)]
    for path in paths:
        siblings = [one for one in paths if one[:-1] == path[:-1]]
        after = siblings.index(path) + 1
        right = number[siblings[after]] if after < len(siblings) else NONE
        kind = 2 if path in streams else 1
        size = len(streams.get(path, b""))
        entries.append(
            _entry(
                path[-1],
                kind,
                right,
                _first_child(path, paths, number),
                begins.get(path, END if kind == 2 else 0),
                size,
            )
        )
    entries += [_entry("", 0, NONE, NONE, 0, 0)] * (-len(entries) % 4)
    return b"".join(entries)


def _first_child(path: Path, paths: Sequence[Path], number: Mapping[Path, int]) -> int:
    return next((number[one] for one in paths if one[:-1] == path and len(one) == len(path) + 1), NONE)


def _entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
    wide = name.encode("utf-16-le")
    return struct.pack(
        "<64sHBBIII16xI16xIQ", wide, len(wide) + 2 if name else 0, kind, 1, NONE, right, child, 0, start, size
    )


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _padded(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)
