"""Reads safetensors files without trusting a byte of them.

Guarantees: the header is bounded and checked before anything is computed from it; every tensor lies inside
the file, where the header says, and no byte of the data belongs to none or to two; malformed input is
answered with `Unprocessable` or `TooLarge` only.
Source: the safetensors format description: a little-endian uint64 header length, a JSON header, then raw
data.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from allod.errors import TooLarge, Unprocessable
from allod.limits import SAFETENSORS_HEADER_BYTES_MAX

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64,
    "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class Entry(msgspec.Struct, frozen=True):
    """One tensor; the offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(msgspec.Struct, frozen=True):
    tensors: dict[str, Entry]
    data_start: int


def header(path: Path) -> Header:
    """The checked header. Raises Unprocessable `model.safetensors-malformed`, TooLarge
    `model.header-too-large`, and OSError as `open` does."""
    size = path.stat().st_size
    with path.open("rb") as f:
        try:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            if length > SAFETENSORS_HEADER_BYTES_MAX:
                raise TooLarge(
                    "model.header-too-large",
                    f"{path.name} has a header of more than {SAFETENSORS_HEADER_BYTES_MAX} bytes",
                )
            raw = msgspec.json.decode(f.read(length), type=dict[str, msgspec.Raw])
            msgspec.json.decode(raw.pop("__metadata__", b"{}"), type=dict[str, str])
            tensors = {name: msgspec.json.decode(value, type=Entry) for name, value in raw.items()}
            _check(tensors, size - 8 - length)
        except (ValueError, struct.error, msgspec.DecodeError, RecursionError) as e:
            raise Unprocessable("model.safetensors-malformed", f"{path.name} is malformed: {e}") from e
    return Header(tensors=tensors, data_start=8 + length)


def _check(tensors: dict[str, Entry], data_bytes: int) -> None:
    """Tensors lie one behind the other and fill the data, as the format demands: no byte can hide."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != at or end < begin:
            raise ValueError(f"{name!r} does not begin where the tensor before it ends")
        if entry.dtype not in _BITS:
            raise ValueError(f"{name!r} is of unknown type {entry.dtype!r}")
        if (
            any(n < 0 for n in entry.shape)
            or math.prod(entry.shape) * _BITS[entry.dtype] != (end - begin) * 8
        ):
            raise ValueError(f"{name!r} is not as long as its shape")
        at = end
    if at != data_bytes:
        raise ValueError(f"its tensors take {at} bytes, the file has {data_bytes}")


def read(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every F32 tensor by name, as read-only views of the mapped file. Raises as `header` does."""
    import numpy as np  # wanted by those who convert models, not by those who check them

    found = header(path)
    wanted = {name: entry for name, entry in found.tensors.items() if entry.dtype == "F32" and entry.shape}
    if not any(math.prod(entry.shape) for entry in wanted.values()):
        return {}
    data = np.memmap(path, np.uint8, "r", offset=found.data_start)
    return {
        name: data[entry.data_offsets[0] : entry.data_offsets[1]].view(np.float32).reshape(entry.shape)
        for name, entry in wanted.items()
    }
