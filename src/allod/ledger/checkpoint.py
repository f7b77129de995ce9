"""The checkpoint (C2SP tlog-checkpoint): what a log commits to, as the text of a signed note."""

from __future__ import annotations

from typing import NamedTuple

from allod.errors import Integrity
from allod.signing import Note, VKey, b64, parse_note, unb64, verify_note


class Checkpoint(NamedTuple):
    """`root` is the RFC 6962 root over the first `size` leaves of the log named `origin`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Accepts extension lines of other logs and drops them. Raises Integrity `checkpoint.malformed`."""
        try:
            origin, size, root, *_ = text.decode().split("\n")
            decoded = unb64(root)
            if not origin or decoded is None or len(decoded) != 32 or str(int(size)) != size or int(size) < 0:
                raise ValueError("field")
        except ValueError as e:
            raise Integrity("checkpoint.malformed", "the checkpoint is malformed") from e
        return cls(origin, int(size), decoded)


class Verified(NamedTuple):
    checkpoint: Checkpoint
    log: tuple[VKey, ...]  # the log's keys that signed
    witnesses: tuple[VKey, ...]  # the witnesses that cosigned
    note: Note


def verify(data: bytes, log: tuple[VKey, ...], witnesses: tuple[VKey, ...] = ()) -> Verified:
    """A checkpoint note under the log's keys (any one of them) and, where known, its witnesses'.

    Raises Integrity: `note.*`, `checkpoint.malformed`, `checkpoint.origin` (the log's key, but another log).
    """
    note = parse_note(data)
    signed = verify_note(note, [*log, *witnesses])
    by_log = tuple(k for k in signed if k in log)
    if not by_log:
        raise Integrity("note.unsigned", "the log itself did not sign this checkpoint")
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin not in {k.name for k in by_log}:
        raise Integrity("checkpoint.origin", f"the checkpoint is of {checkpoint.origin!r}, not of this log")
    return Verified(checkpoint, by_log, tuple(k for k in signed if k in witnesses), note)
