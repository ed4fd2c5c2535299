"""Reads the boxes of ISO/IEC 14496-12, which AVIF files consist of, and the bits of an AV1 sequence header."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Boxes that hold boxes, with the bytes before the first of them.
CONTAINERS = {b"meta": 4, b"iinf": None, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
# The most boxes in a file. Files have some dozens.
_MOST_BOXES = 100_000


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind, start and end of the contents of each box between `start` and `end`; nested boxes follow their parent.

    Raises ValueError for boxes without end, and struct.error for a truncated box.
    """
    pending = [(start, end)]
    for _ in range(_MOST_BOXES):
        while pending and pending[-1][0] + 8 > pending[-1][1]:
            pending.pop()
        if not pending:
            return
        at, end = pending.pop()
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        last = end if length == 0 else at + length
        if length and length < head:
            raise ValueError("one of its boxes is shorter than its own head")
        last = min(last, end)
        yield kind, at + head, last
        pending.append((last, end))
        if kind in CONTAINERS:
            before = CONTAINERS[kind]
            if before is None:  # the number of entries, of 16 bits in the first version
                before = 6 if data[at + head] == 0 else 8
            pending.append((at + head + before, last))
    raise ValueError("it has boxes without end")


class Bits:
    """Reads bits from bytes, the most significant bit first, and zeros after the end."""

    def __init__(self, data: bytes):
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else 0) & (1 << count) - 1


def sequence_size(header: bytes) -> tuple[int, int]:
    """Returns the largest width and height that a frame after this AV1 sequence header can have (AV1 specification, 5.5).

    A frame may declare its own size, in as many bits as the header allows. With the short header for stills, dav1d does not
    check that size against the header.
    """
    bits = Bits(header[:512])
    bits.take(3 + 1)  # profile, still picture
    short = bits.take(1)
    if short:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(across) + 1, bits.take(down) + 1
    return (width, height) if short else (1 << across, 1 << down)


def _skip_operating_points(bits: Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            zeros = 0
            while zeros < 32 and not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # a model of the decoder
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)
