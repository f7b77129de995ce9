"""The spool's file format: preallocated segments of framed records. Shared by the writer and the reader.

A segment is `HEADER_BYTES` of header and then frames up to a seal or the first zero word:

    frame   = magic u16 · kind u8 · zero u8 · payload length u32 · crc32 u32 · payload     (little-endian)
    crc32   over the payload, seeded with the frame's position, so that a frame moved elsewhere does not pass
    begin   payload = msgpack of `intent.Intent`
    end     payload = id (28) · key (32) · leaf length u16 · leaf · opening
    seal    no payload; the writer went on to the next segment

A position is `segment number * segment size + offset`: one integer orders everything a writer wrote.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from allod.limits import LEAF_BYTES_MAX, SPOOL_OPENING_BYTES_MAX

HEADER_BYTES = 64
FRAME = struct.Struct("<HBBII")
FRAME_BYTES = FRAME.size
FRAME_MAGIC = 0xA10D
END_HEAD = struct.Struct("<28s32sH")
BEGIN, END, SEAL = 1, 2, 3
PAYLOAD_BYTES_MAX = END_HEAD.size + LEAF_BYTES_MAX + SPOOL_OPENING_BYTES_MAX

_HEADER = struct.Struct("<16sQQ")
_MAGIC = b"allod-spool/1\n\0\0"
_MAGIC_BYTES = struct.pack("<H", FRAME_MAGIC)


class Entry(NamedTuple):
    """One finished record on its way into the tree."""

    id: str
    leaf: bytes
    key: bytes
    opening: bytes = b""


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a dead writer's segment that are no record: `offset` in `path` (relative to the spool)."""

    path: str
    offset: int
    reason: str


class Frame(NamedTuple):
    kind: int
    payload: bytes
    end: int  # offset of the byte after it


def header(number: int, segment_bytes: int) -> bytes:
    body = _HEADER.pack(_MAGIC, number, segment_bytes)
    return (body + struct.pack("<I", zlib.crc32(body))).ljust(HEADER_BYTES, b"\0")


def read_header(data: bytes) -> tuple[int, int] | None:
    """(number, segment size), or None where there is no valid header."""
    body = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or data[: len(_MAGIC)] != _MAGIC:
        return None
    if struct.unpack_from("<I", data, _HEADER.size)[0] != zlib.crc32(body):
        return None
    _, number, segment_bytes = _HEADER.unpack(body)
    return number, segment_bytes


def checksum(payload: bytes, position: int) -> int:
    """`position` is where the frame starts; only its low 32 bits matter."""
    return zlib.crc32(payload, position & 0xFFFFFFFF)


def read_frame(data: memoryview, offset: int, base: int) -> Frame | str | None:
    """The frame at `offset`; None where nothing is written yet; a reason where the bytes are damaged."""
    if offset + FRAME_BYTES > len(data):
        return None
    magic, kind, zero, length, crc = FRAME.unpack_from(data, offset)
    if magic == 0 and kind == 0 and length == 0 and crc == 0 and zero == 0:
        return None
    start = offset + FRAME_BYTES
    if magic != FRAME_MAGIC or zero != 0 or kind not in (BEGIN, END, SEAL):
        return "not a frame"
    if length > PAYLOAD_BYTES_MAX or start + length > len(data):
        return "impossible length"
    payload = bytes(data[start : start + length])
    if checksum(payload, base + offset) != crc:
        return "checksum mismatch"
    return Frame(kind, payload, start + length)


def next_frame(data: memoryview, offset: int, base: int) -> int | None:
    """Offset of the next valid frame after damage at `offset`, or None."""
    for found in _places(bytes(data[offset + 1 :])):
        if isinstance(read_frame(data, offset + 1 + found, base), Frame):
            return offset + 1 + found
    return None


def _places(data: bytes) -> Iterator[int]:
    at = data.find(_MAGIC_BYTES)
    while at >= 0:
        yield at
        at = data.find(_MAGIC_BYTES, at + 1)


def parse_end(payload: bytes) -> Entry:
    """Raises ValueError where lengths do not add up."""
    receipt_id, key, leaf_bytes = END_HEAD.unpack_from(payload)
    leaf_end = END_HEAD.size + leaf_bytes
    if leaf_end > len(payload):
        raise ValueError("leaf runs past its record")
    return Entry(receipt_id.decode("ascii"), payload[END_HEAD.size : leaf_end], key, payload[leaf_end:])
