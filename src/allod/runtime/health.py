"""Asks a replica whether it is ready: one GET over its Unix socket. Raises nothing; silence is an answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from allod.runtime import sockets

_STATUS_LINE_BYTES_MAX = 256


async def ask(socket: Path, path: str, timeout_s: float) -> str:
    """Empty if the answer's status is 200, else why it does not count, for people."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(socket, path)
    except FileNotFoundError:
        return "its socket is not there"
    except ConnectionRefusedError:
        return "nothing listens on its socket"
    except TimeoutError:
        return f"no answer on {path} within {timeout_s:.0f} s"
    except OSError as e:
        return f"its socket cannot be reached: {e.strerror or e}"


async def _get(socket: Path, path: str) -> str:
    with sockets.itself(socket) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=_STATUS_LINE_BYTES_MAX)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n".encode())
        try:
            line = await reader.readline()
        except ValueError:
            return f"{path} did not answer in HTTP"
        parts = line.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1."):
            return f"{path} did not answer in HTTP"
        return "" if parts[1] == b"200" else f"{path} answered {parts[1].decode(errors='replace')}"
    finally:
        writer.close()
