"""Reads the beginning of a GGUF file without trusting a byte of it.

Guarantees: never reads more than `GGUF_HEADER_BYTES_MAX`, never allocates what a length field asks for before
checking that the file is that long, and answers malformed input with `Unprocessable` only. Long arrays (the
vocabulary) are skipped, not kept.
Source: the GGUF specification, version 3 (little-endian; version 2 differs in nothing read here).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from allod.errors import TooLarge, Unprocessable
from allod.limits import GGUF_HEADER_BYTES_MAX, GGUF_KEYS_MAX, GGUF_TENSORS_MAX

T = TypeVar("T")

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_KEY_BYTES_MAX = 64 * 1024  # the specification's own bound is 2^16 - 1

# bytes per block and values per block, by ggml type; a type that is not here has an unknown size
_BLOCKS = {
    0: (4, 1), 1: (2, 1), 2: (18, 32), 3: (20, 32), 6: (22, 32), 7: (24, 32), 8: (34, 32), 10: (84, 256),
    11: (110, 256), 12: (144, 256), 13: (176, 256), 14: (210, 256), 15: (292, 256), 24: (1, 1), 25: (2, 1),
    26: (4, 1), 27: (8, 1), 28: (8, 1), 30: (2, 1),
}  # fmt: skip

# general.file_type of llama.cpp
_FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
    32: "bf16",
}  # fmt: skip


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF file says of itself. `scalars` holds its keys with a number, bool or string as value."""

    version: int
    tensors: int
    scalars: dict[str, Any]
    data_end: int  # the file is at least this long if it is whole; 0 where a tensor's size is unknown

    @property
    def architecture(self) -> str:
        return str(self.scalars.get("general.architecture", ""))

    @property
    def context_tokens(self) -> int | None:
        """The context the model was trained for."""
        value = self.scalars.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) else None

    @property
    def quantisation(self) -> str:
        return _FILE_TYPES.get(self.scalars.get("general.file_type", -1), "")

    @property
    def embeds(self) -> bool:
        """Encoders answer with vectors; decoders with text."""
        return f"{self.architecture}.pooling_type" in self.scalars


class _Reader:
    def __init__(self, f: BinaryIO, size: int, name: str) -> None:
        self._f = f
        self._name = name
        self._size = size
        self._end = min(size, GGUF_HEADER_BYTES_MAX)
        self.at = 0

    def take(self, count: int) -> bytes:
        self._need(count)
        self.at += count
        return self._f.read(count)

    def skip(self, count: int) -> None:
        self._need(count)
        self.at += count
        self._f.seek(self.at)

    def _need(self, count: int) -> None:
        if count > self._end - self.at:
            if self._end < self._size:
                raise TooLarge(
                    "model.header-too-large",
                    f"{self._name} has a header of more than {GGUF_HEADER_BYTES_MAX} bytes",
                )
            raise ValueError("ends inside its header")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        length = self.number("<Q")
        if length > _KEY_BYTES_MAX * 64:  # chat templates are strings too: 4 MiB
            raise ValueError("holds an unreasonably long string")
        return self.take(length).decode(errors="replace")

    def value(self, kind: int, keep: dict[int, str] | None = None) -> Any:
        """A scalar or string; None for an array, which is skipped but for the texts that `keep` asks for."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise ValueError(f"holds a value of unknown type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            if count * 8 > self._end - self.at:
                raise ValueError("ends inside its header")
            for place in range(count):
                if keep is not None and place in keep:
                    keep[place] = self.text()
                else:
                    self.skip(self.number("<Q"))
        else:
            raise ValueError(f"holds an array of unknown type {inner}")
        return None


def _counts(r: _Reader) -> tuple[int, int, int]:
    """Version, tensors and keys."""
    if r.take(4) != _MAGIC:
        raise ValueError("does not begin with GGUF")
    version = r.number("<I")
    if version not in {2, 3}:
        raise ValueError(f"has GGUF version {version}; 2 and 3 are known")
    tensors, keys = r.number("<Q"), r.number("<Q")
    if tensors > GGUF_TENSORS_MAX or keys > GGUF_KEYS_MAX:
        raise ValueError(f"announces {tensors} tensors and {keys} keys")
    return version, tensors, keys


def _read(r: _Reader, size: int) -> GgufHeader:
    version, tensors, keys = _counts(r)
    scalars: dict[str, Any] = {}
    for _ in range(keys):
        key = r.text()
        value = r.value(r.number("<I"))
        if value is not None:
            scalars[key] = value
    known, end = True, 0
    for _ in range(tensors):
        r.text()
        dimensions = r.number("<I")
        if dimensions > 8:
            raise ValueError("holds a tensor of too many dimensions")
        values = 1
        for _ in range(dimensions):
            values *= r.number("<Q")
        kind, offset = r.number("<I"), r.number("<Q")
        if kind in _BLOCKS:
            per_block, block = _BLOCKS[kind]
            end = max(end, offset + values // block * per_block)
        else:
            known = False
    alignment = scalars.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise ValueError("has an impossible alignment")
    start = -(-r.at // alignment) * alignment
    data_end = start + end if known else 0
    if data_end > size:
        raise ValueError(f"is cut off: {size} bytes of at least {data_end}")
    return GgufHeader(version=version, tensors=tensors, scalars=scalars, data_end=data_end)


def _texts(r: _Reader, key: str, places: frozenset[int]) -> dict[int, str]:
    _version, _tensors, keys = _counts(r)
    for _ in range(keys):
        name = r.text()
        kept = dict.fromkeys(places, "")
        r.value(r.number("<I"), kept)
        if name == key:
            return {place: text for place, text in kept.items() if text}
    return {}


def read(path: Path) -> GgufHeader:
    """The header of a GGUF file. Raises Unprocessable `model.gguf-malformed`, and OSError as `open` does."""
    return _opened(path, _read)


def array_texts(path: Path, key: str, places: frozenset[int]) -> dict[int, str]:
    """The texts at `places` of the array of strings called `key`; what is not there is left out.

    Raises as `read` does.
    """
    return _opened(path, lambda r, _size: _texts(r, key, places))


def _opened(path: Path, reading: Callable[[_Reader, int], T]) -> T:
    size = path.stat().st_size
    with path.open("rb") as f:
        try:
            return reading(_Reader(f, size, path.name), size)
        except (ValueError, struct.error, OverflowError) as e:
            raise Unprocessable(
                "model.gguf-malformed",
                f"{path.name} {e}" if str(e) else f"{path.name} is not a whole GGUF file",
                hint="fetch the file again and compare its sha256 with its maker's",
            ) from e
