"""Walks an ONNX file's protobuf without a protobuf library, to know that it is whole and stays by itself.

Guarantees: reads within the file only, looks at a bounded number of fields, nests no deeper than
`_DEPTH_MAX`; refuses what is malformed and what points to data outside the file (a path that its reader would
follow).
Source: onnx.proto3 (ModelProto and what it holds), Protocol Buffers encoding.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from allod.errors import Unprocessable
from allod.limits import ONNX_NODES_MAX

_DEPTH_MAX = 32  # subgraphs in subgraphs; real models have two
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation

# message -> field number -> the message it holds; other fields are skipped
_HOLDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def check(path: Path) -> None:
    """Raises Unprocessable `model.onnx-malformed` or `model.onnx-external`, and OSError as `open` does."""
    with path.open("rb") as f:
        if not path.stat().st_size:
            raise _malformed(path, "it is empty")
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk = _Walk(data)
            try:
                walk.message("model", 0, len(data), 0)
            except (ValueError, IndexError) as e:
                raise _malformed(path, str(e)) from e
    if not walk.graphs or not walk.version:
        raise _malformed(path, "it holds no graph")
    if walk.external:
        raise Unprocessable(
            "model.onnx-external",
            f"{path.name} keeps tensors in other files, by path",
            hint="save the model as one file, or as safetensors",
        )


def _malformed(path: Path, why: str) -> Unprocessable:
    return Unprocessable("model.onnx-malformed", f"{path.name} is not a whole ONNX file: {why}")


class _Walk:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._left = ONNX_NODES_MAX
        self.graphs = 0
        self.version = False
        self.external = False

    def message(self, kind: str, at: int, end: int, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise ValueError("it nests too deeply")
        self.graphs += kind == "graph"
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many fields")
            key, at = self._number(at, end)
            field, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = self._number(at, end)
                self.version |= kind == "model" and field == 1
                self.external |= kind == "tensor" and field == 14 and value == _EXTERNAL
                continue
            if wire == _BYTES:
                length, at = self._number(at, end)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire} is not known")
            if field == 0 or length > end - at:
                raise ValueError("a field is longer than what holds it")
            if wire == _BYTES and (held := _HOLDS[kind].get(field)):
                self.message(held, at, at + length, depth + 1)
            self.external |= kind == "tensor" and field == 13 and wire == _BYTES
            at += length

    def _number(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError("it ends inside a number")
