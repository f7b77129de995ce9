"""Child processes of the launcher: start, watch, restart with back-off, stop; not what they do."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
BACKOFF_FIRST_S = 0.1  # a single crash should cost nobody a visible pause
BACKOFF_MAX_S = 10.0
_FRONT_NAMES = frozenset({"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"})
_FRONT_PREFIXES = ("LC_", "PYTHON", "LD_", "MALLOC_")
STEADY_S = 30.0  # alive this long: the next crash starts at the first back-off again


def _die_with_parent() -> None:
    """In the child, before exec: SIGTERM once the launcher is gone, so that its kill -9 leaves no orphan."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One process that must be running. `argv` is what follows the Python interpreter."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    stderr: int | None = None
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    restart_at: float = field(default=0.0)

    def start(self, now: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *self.argv],
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            stderr=self.stderr,
            pass_fds=self.pass_fds,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 — the launcher has one thread
            start_new_session=True,  # a terminal's Ctrl-C reaches the launcher alone, which then drains
        )
        self.started = now
        self.restart_at = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


def back_off(failures: int) -> float:
    """Seconds to wait before the n-th restart in a row (n from 1)."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10))


def tend(child: Child, now: float, say: Callable[[str], None]) -> None:
    """One look at a child: restart it when it is dead and its back-off is over."""
    if child.alive:
        return
    if child.restart_at == 0.0:
        code = child.process.returncode if child.process else None
        child.failures = 1 if now - child.started > STEADY_S else child.failures + 1
        child.restart_at = now + back_off(child.failures)
        say(f"{child.name} ended ({describe_exit(code)}); restarting in {back_off(child.failures):.1f} s")
    if now >= child.restart_at:
        child.start(now)


def describe_exit(code: int | None) -> str:
    """`-9` -> `killed by SIGKILL`, `1` -> `exit status 1`."""
    if code is None:
        return "never started"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}"


def stop(children: Sequence[Child], *, grace_s: float) -> None:
    """SIGTERM to all, SIGKILL to those still there after `grace_s` seconds."""
    for child in children:
        if child.alive and child.process is not None:
            child.process.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        if child.process is None:
            continue
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def pid_alive(pid: int) -> bool:
    """Whether a process of that pid exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment() -> dict[str, str]:
    """What control inherits: all of it, because key references may name any variable."""
    return dict(os.environ)


def front_environment() -> dict[str, str]:
    """What a front inherits: enough to run. It reads what strangers send, so it holds no provider's key."""
    return {k: v for k, v in os.environ.items() if k in _FRONT_NAMES or k.startswith(_FRONT_PREFIXES)}
