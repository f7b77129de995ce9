"""The Merkle tree of RFC 6962 (SHA-256): hashing, and checking proofs. Pure; knows nothing of files.

Inclusion and consistency proofs are checked as RFC 9162 §2.1.3.2 and §2.1.4.2 describe: bottom-up, without
recursion, and a proof with a hash too many or too few is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


def leaf_hash(leaf: bytes) -> bytes:
    return _sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\1" + left + right).digest()


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes` as the leaves of a tree whose size is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [_sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


def fold_peaks(peaks: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, largest (leftmost) first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def split(size: int) -> int:
    """The largest power of two smaller than `size` (size > 1)."""
    return 1 << (size - 1).bit_length() - 1


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that `path` leads to from leaf hash `leaf`, or None if the path has the wrong shape."""
    if not 0 <= index < size:
        return None
    fn, sn, root = index, size - 1, leaf
    for step in path:
        if sn == 0 or len(step) != HASH_BYTES:
            return None
        if fn & 1 or fn == sn:
            root = _sha256(b"\1" + step + root).digest()
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            root = _sha256(b"\1" + root + step).digest()
        fn >>= 1
        sn >>= 1
    return root if sn == 0 else None


def consistent(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree of `old_size` is a prefix of the tree of `size`."""
    if not 0 <= old_size <= size or any(len(p) != HASH_BYTES for p in path):
        return False
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    if old_size == size:
        return not path and old_root == root
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    old, new = steps[0], steps[0]
    for step in steps[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old = node_hash(step, old)
            new = node_hash(step, new)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            new = node_hash(new, step)
        fn >>= 1
        sn >>= 1
    return sn == 0 and old == old_root and new == root
