"""PNG files of 16 bits a channel, which PIL cuts to 8 where they have colours (PNG specification, third edition).

Filters depend on the pixel to the left, above and above left. Pixels on one anti-diagonal do not depend on each other,
so a picture is unfiltered diagonal by diagonal, all rows at once and whatever filter each of them has.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from effkit.errors import UserError

__all__ = ["SIGNATURE", "bit_depth", "decode", "encode"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; palettes have 8 bits at most
_TYPES = {channels: kind for kind, channels in CHANNELS.items()}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7


def bit_depth(head: bytes) -> int:
    """Bits a channel of a PNG file, from its first 25 bytes; 0 if it is none."""
    return head[24] if len(head) >= 25 and head.startswith(SIGNATURE) else 0


def decode(content: bytes) -> tuple[NDArray, dict[bytes, bytes]]:
    """Read a PNG file of 16 bits a channel.

    Args:
        content: The whole file.

    Returns:
        uint16 ``(H, W, C)`` with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 channels, and the other chunks by their type.

    Raises:
        UserError: If it is damaged.
    """
    chunks: dict[bytes, bytes] = {}
    data = b""
    for kind, body in _chunks(content):
        if kind == b"IDAT":
            data += body
        else:
            chunks.setdefault(kind, body)
    try:
        width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        raw = np.frombuffer(zlib.decompress(data), np.uint8)
        channels = CHANNELS[colour]
        pixels = np.zeros((height, width, channels), np.uint16)
        for top, left, down, right in _PASSES if interlaced else ((0, 0, 1, 1),):
            part = pixels[top::down, left::right]
            if part.size:
                size = part.shape[0] * (1 + 2 * channels * part.shape[1])
                part[:] = _unfiltered(raw[:size], *part.shape)
                raw = raw[size:]
    except (KeyError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"the PNG file is damaged: {error}") from error
    return pixels, chunks


def encode(pixels: NDArray, chunks: Mapping[bytes, bytes] | None = None) -> bytes:
    """Write a PNG file of 16 bits a channel.

    Args:
        pixels: uint16 ``(H, W, C)`` with 1 to 4 channels.
        chunks: Further chunks by type; they go before the pixels.

    Returns:
        The whole file.
    """
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, _TYPES[channels], 0, 0, 0)
    lines = pixels.astype(">u2").view(np.uint8).reshape(height, 2 * channels * width)
    left = np.zeros_like(lines)
    left[:, 2 * channels :] = lines[:, : -2 * channels]
    filtered = np.concatenate([np.ones((height, 1), np.uint8), lines - left], axis=1)  # each pixel minus its left one
    body = zlib.compress(filtered.tobytes(), 6)
    parts = [(b"IHDR", head), *(chunks or {}).items(), (b"IDAT", body), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, part) for kind, part in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        stored = content[place + 8 + length : place + 12 + length]
        if len(stored) < 4 or zlib.crc32(kind + body) != struct.unpack(">I", stored)[0]:
            raise UserError("the PNG file is damaged: a part of it is cut off or changed")
        yield kind, body
        place += 12 + length
        if kind == b"IEND":
            return
    raise UserError("the PNG file is damaged: its end is missing")


def _unfiltered(raw: NDArray, height: int, width: int, channels: int) -> NDArray:
    """Lines of filtered bytes, each behind the number of its filter, to pixels ``(H, W, C)``."""
    size = 2 * channels
    lines = raw.reshape(height, 1 + size * width)
    kinds = lines[:, 0]
    if kinds.max(initial=0) > 4:
        raise ValueError(f"there is no filter {kinds.max()}")
    given = lines[:, 1:].reshape(height, width, size).astype(np.int16)
    found = np.zeros((height + 1, width + 1, size), np.int16)  # a border of zeros above and to the left
    if not np.any(kinds > 2):  # what sums can do
        _by_sums(kinds, given, found)
    else:
        _by_diagonals(kinds, given, found)
    return np.ascontiguousarray(found[1:, 1:].astype(np.uint8)).view(">u2").astype(np.uint16)


def _by_sums(kinds: NDArray, given: NDArray, found: NDArray) -> None:
    for row, kind in enumerate(kinds):
        line = given[row]
        if kind == 1:
            line = np.cumsum(line, axis=0, dtype=np.int64) & 255
        elif kind == 2:
            line = (line + found[row, 1:]) & 255
        found[row + 1, 1:] = line


def _by_diagonals(kinds: NDArray, given: NDArray, found: NDArray) -> None:
    height, width, _ = given.shape
    for step in range(height + width - 1):
        rows = np.arange(max(0, step - width + 1), min(height, step + 1))
        columns = step - rows
        left, above = found[rows + 1, columns], found[rows, columns + 1]
        corner = found[rows, columns]
        kind = kinds[rows][:, None]
        predicted = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4],
            [left, above, (left + above) // 2, _paeth(left, above, corner)],
            0,
        )
        found[rows + 1, columns + 1] = (given[rows, columns] + predicted) & 255


def _paeth(left: NDArray, above: NDArray, corner: NDArray) -> NDArray:
    estimate = left + above - corner
    to_left, to_above, to_corner = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
