"""Takes an erased record's key out of the spool, where its worker wrote it before the log took it over.

A worker's present segment keeps every record since the last rotation, so the key would outlive its own
destruction by days. It is overwritten in place, in whole frames with their checksum: a later reader meets the
same records, finds them in the tree already and drops them.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from allod.ledger import files
from allod.ledger import segment as sg
from allod.ledger.spool import SUFFIX


def wipe(root: Path, key: bytes) -> None:
    """Overwrites `key`, and the private note behind it, in every segment below `root`, durably.

    Only for a record that is in the tree. The caller keeps segments from being removed meanwhile. Raises
    NotReady `ledger.io`.
    """
    try:
        for path in root.glob(f"*/*{SUFFIX}"):
            _wipe_segment(path, key)
    except OSError as e:
        raise files.not_ready(e) from e


def _wipe_segment(path: Path, key: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        head = sg.read_header(os.pread(fd, sg.HEADER_BYTES, 0))
        if head is None:
            return
        with mmap.mmap(fd, 0) as data:  # shared with the worker, which only ever writes behind its last frame
            if data.find(key) < 0:
                return
            with memoryview(data) as view:
                _wipe_frames(view, head[0] * head[1], key)
            data.flush()
    finally:
        os.close(fd)


def _wipe_frames(view: memoryview, base: int, key: bytes) -> None:
    offset: int | None = sg.HEADER_BYTES
    while offset is not None:
        frame = sg.read_frame(view, offset, base)
        if not isinstance(frame, sg.Frame):
            offset = None if frame is None else sg.next_frame(view, offset, base)
            continue
        if key in frame.payload:
            wiped = _without(frame, key)
            crc = sg.checksum(wiped, base + offset)
            view[offset + sg.FRAME_BYTES : frame.end] = wiped
            sg.FRAME.pack_into(view, offset, sg.FRAME_MAGIC, frame.kind, 0, len(wiped), crc)
        offset = frame.end


def _without(frame: sg.Frame, key: bytes) -> bytes:
    """The payload with zeros for the key, and for the note that a finished record has after its leaf."""
    wiped = frame.payload.replace(key, bytes(len(key)))
    if frame.kind != sg.END:
        return wiped
    note = len(sg.parse_end(frame.payload).opening)
    return wiped[: len(wiped) - note] + bytes(note)
