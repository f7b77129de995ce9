"""What /proc says of processes. Only reads; a process that is gone is an answer, never an error.

A pid alone names nobody: the kernel hands it out again. `Pid` adds the start time (field 22 of
/proc/<pid>/stat, clock ticks since boot), which makes confusion impossible within one boot.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Pid(msgspec.Struct, frozen=True):
    """One process, for the length of one boot."""

    pid: int
    started: int  # clock ticks since boot


def identify(pid: int) -> Pid | None:
    """The process that has this pid now; None if there is none, or only a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return Pid(pid, int(fields[19]))


def alive(process: Pid) -> bool:
    return identify(process.pid) == process


def open_pidfd(process: Pid) -> int | None:
    """A file descriptor that stays with exactly this process; None where it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if alive(process):
        return fd
    os.close(fd)
    return None


def signal_process(process: Pid, number: int) -> bool:
    """Sends a signal to exactly this process. False where it is gone."""
    if (fd := open_pidfd(process)) is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def children(pid: int) -> tuple[int, ...]:
    """Pids of the direct children, over all threads of `pid`."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(p) for p in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return tuple(found)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and everything below it. Shared pages count once per process."""
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        waiting += children(one)
    return total


def boot_id() -> str:
    """Names this boot: pids and start times mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def marked(marker: bytes) -> Iterator[Pid]:
    """Living processes whose environment has an entry that starts with `marker`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if (environ.startswith(marker) or b"\0" + marker in environ) and (found := identify(int(entry.name))):
            yield found


def _stat(pid: int) -> list[bytes] | None:
    """The fields after the command name, which may itself contain spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
