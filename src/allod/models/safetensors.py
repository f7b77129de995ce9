"""Reads float32 tensors from a safetensors file, whose header is checked before anything is trusted.

Source: the safetensors format description: a little-endian uint64 header length, a JSON header, then raw
data.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from allod.errors import Unprocessable
from allod.limits import SAFETENSORS_HEADER_BYTES_MAX


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every F32 tensor by name, as read-only views of the mapped file. Raises Unprocessable
    `model.safetensors-malformed`, and OSError as `open` does."""
    size = path.stat().st_size
    with path.open("rb") as f:
        try:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > min(size - 8, SAFETENSORS_HEADER_BYTES_MAX):
                raise ValueError("the header is longer than the file")
            raw = msgspec.json.decode(f.read(length), type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
            data = np.memmap(path, np.uint8, "r", offset=8 + length)
            return {name: _view(data, e) for name, e in entries.items() if e.dtype == "F32"}
        except (ValueError, struct.error, msgspec.DecodeError) as e:
            raise Unprocessable("model.safetensors-malformed", f"{path.name} is malformed: {e}") from e


def _view(data: npt.NDArray[np.uint8], entry: _Entry) -> npt.NDArray[np.float32]:
    begin, end = entry.data_offsets
    if not 0 <= begin <= end <= len(data) or end - begin != 4 * math.prod(entry.shape):
        raise ValueError("a tensor lies outside the file")
    return data[begin:end].view(np.float32).reshape(entry.shape)
