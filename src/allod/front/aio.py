"""fdatasync without a thread: Linux native AIO (io_submit(2), IOCB_CMD_FDSYNC), told by an eventfd.

A thread that syncs fights the loop for the interpreter lock at every batch, which costs more than the sync
itself. The kernel does it in its own worker and writes to an eventfd that the loop already polls. Where the
kernel or a sandbox does not offer it, `available` is False and a thread does the work.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}  # setup, destroy, getevents, submit
_FDSYNC = 3  # IOCB_CMD_FDSYNC: fdatasync
_RESFD = 1  # IOCB_FLAG_RESFD: signal the eventfd
_DEPTH = 16  # files in one sync: the current segment and those just left behind
_IOCB = struct.Struct("<QIiHhIQQqQII")
_EVENT = struct.Struct("<QQqq")


class Syncer:
    """One sync at a time, of a few files. Raises OSError where native AIO is not to be had."""

    def __init__(self) -> None:
        numbers = _CALLS.get(platform.machine())
        if numbers is None:
            raise OSError("no native AIO known for this machine")
        self._setup, self._destroy, self._getevents, self._submit = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        self._check(self._syscall(self._setup, _DEPTH, ctypes.byref(self._context)))
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._iocbs = ctypes.create_string_buffer(_IOCB.size * _DEPTH)
        base = ctypes.addressof(self._iocbs)
        self._pointers = (ctypes.c_void_p * _DEPTH)(*(base + i * _IOCB.size for i in range(_DEPTH)))
        self._events = ctypes.create_string_buffer(_EVENT.size * _DEPTH)
        self._left = 0
        self._error = 0

    def submit(self, files: list[int]) -> None:
        """Starts one fdatasync per file. Raises OSError; then nothing is under way that has to be waited
        for.
        """
        if len(files) > _DEPTH:
            raise OSError("more files than one sync takes")
        for i, fd in enumerate(files):
            _IOCB.pack_into(
                self._iocbs, i * _IOCB.size, 0, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, _RESFD, self.eventfd
            )
        taken = self._syscall(self._submit, self._context, len(files), self._pointers)
        self._check(taken)
        if taken != len(files):
            raise OSError("the kernel took a part of the sync only")
        self._left = len(files)
        self._error = 0

    def completed(self) -> bool:
        """Called when the eventfd is readable: True once every file is done. Raises OSError if one failed."""
        try:
            os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return False
        count = self._syscall(self._getevents, self._context, 0, _DEPTH, self._events, None)
        self._check(count)
        for i in range(count):
            result = _EVENT.unpack_from(self._events, i * _EVENT.size)[2]
            if result < 0:
                self._error = -result
        self._left -= count
        if self._left:
            return False
        if self._error:
            raise OSError(self._error, os.strerror(self._error))
        return True

    def close(self) -> None:
        self._syscall(self._destroy, self._context)
        os.close(self.eventfd)

    def _check(self, result: int) -> None:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
