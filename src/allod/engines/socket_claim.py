"""Makes a Unix socket's path free to listen on, without taking it from a process that still answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from allod.errors import NotReady, Usage
from allod.limits import SOCKET_PATH_BYTES_MAX


def claim(path: Path) -> None:
    """Removes a socket whose owner is gone. Raises Usage `engine.bad-socket` on a path no socket can have,
    NotReady `engine.socket-in-use` if somebody answers there.
    """
    if path.suffix != ".sock" or not path.is_absolute() or len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise Usage(
            "engine.bad-socket",
            f"{path} is not an absolute path ending in .sock of at most {SOCKET_PATH_BYTES_MAX} bytes",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
        raise NotReady("engine.socket-in-use", f"another process answers on {path}")
