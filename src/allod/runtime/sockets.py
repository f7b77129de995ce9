"""Reaching a replica's socket, and nothing that a replica could put in its place.

A replica owns the folder of its socket, so it can remove the socket and leave a symbolic link there: to
another site's egress process, or to one of the node's own sockets. Whoever connects from outside has to mean
the socket itself. `itself` opens the name without following a link, looks at what it is, and gives a path
that leads to exactly that inode, whatever happens to the name afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator


@contextlib.contextmanager
def itself(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path to connect to while the context lasts. OSError where `path` is not a socket by itself."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTSOCK, "is not a socket", os.fspath(path))
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
