"""`allod up` and `allod down`: the process that keeps control and the front workers running.

It holds no state but its children. Killing any child at any moment brings that child back; killing the
launcher makes the children drain and leave (parent-death signal). Replicas belong to control: they survive
its crash and end with `allod down`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from allod import limits
from allod.config import Config, Home
from allod.config import load as load_config
from allod.errors import NotReady, Usage
from allod.node import processes, tls
from allod.node.processes import Child
from allod.runtime.supervisor import kill_recorded

READY_TIMEOUT_S = 120.0  # models are loaded by then, or `allod status` says which are not
DRAIN_S = 20.0  # exchanges in flight may finish; then they are cancelled and receipted as such
_TICK_S = 0.05


class Ready(msgspec.Struct, frozen=True):
    """What control says on its ready pipe: a key, on the very first start, and then what is not ready."""

    admin_key: str | None = None
    unready: list[str] = []


def up(
    home: Home,
    *,
    listen: str | None,
    workers: int | None,
    tls_self_signed: bool,
    detach: bool,
    tell: Callable[[Ready, str], None],
) -> int:
    """Runs the node until SIGTERM or SIGINT; with `detach`, returns once it is ready.

    `tell` is called once, in this process, as soon as it is ready, with what there is to say and the URL.
    Raises Usage `listen.invalid`, `home.too-long`; NotReady `node.running`, `node.port-taken`,
    `node.not-ready`.
    """
    config = load_config(home)
    _check_paths(home, config)
    lock = _lock(home)
    try:
        reserved = _reserve(listen or config.node.listen)
        address = _address(reserved)
        certificate = _certificate(home, config, address, self_signed=tls_self_signed)
        if detach and (ready_fd := _fork_away(home)) is not None:
            return _report_detached(ready_fd, tell)
        say_ready = _pipe_to_parent if detach else tell
        return _Launcher(home, address, workers or config.node.workers, certificate, say_ready).run(reserved)
    finally:
        os.close(lock)  # after a fork the child holds its own reference


def down(home: Home, *, grace_s: float = DRAIN_S + 10.0) -> int:
    """Stops the node of this home and every replica it left. Returns 0 also when nothing was running."""
    pid = running_pid(home)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while processes.pid_alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(_TICK_S)
    kill_recorded(home.run)
    with contextlib.suppress(NotReady):  # somebody starts it again at this moment: the sockets are theirs
        lock = _lock(home)
        _remove_sockets(home)
        os.close(lock)
    return 0


def running_pid(home: Home) -> int | None:
    """The launcher's pid while it holds the home's lock, else None."""
    path = home.run / "node.lock"
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text().strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None


class _Launcher:
    def __init__(
        self,
        home: Home,
        address: tuple[str, int],
        workers: int,
        certificate: tuple[Path, Path] | None,
        say_ready: Callable[[Ready, str], None],
    ) -> None:
        self._home = home
        scheme = "https" if certificate else "http"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self._url = f"{scheme}://{host}:{address[1]}"
        self._listen = f"{host}:{address[1]}"
        self._workers = workers
        self._certificate = certificate
        self._say_ready = say_ready
        self._stopping = False

    def run(self, reserved: socket.socket) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        ready_read, ready_write = os.pipe()
        control = self._control(ready_write)
        control.start(time.monotonic())
        children = [control]
        try:
            os.close(ready_write)
            pipe = _Lines(ready_read)
            first = self._await(pipe, control)
            control.pass_fds = ()
            control.argv = [a for a in control.argv if not a.startswith("--ready-fd=")]
            for worker in range(self._workers):
                front = self._front(worker)
                front.start(time.monotonic())
                children.append(front)
            self._await_listening()
            settled = self._await(pipe, control)
            self._say_ready(Ready(first.admin_key, settled.unready), self._url)
            while not self._stopping:
                for child in children:
                    processes.tend(child, time.monotonic(), _say)
                time.sleep(_TICK_S)
        finally:
            # Fronts first: they finish what they carry while control still sequences their receipts.
            processes.stop(children[1:], grace_s=DRAIN_S)
            processes.stop(children[:1], grace_s=DRAIN_S)
            _remove_sockets(self._home)
            reserved.close()
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _control(self, ready_fd: int) -> Child:
        argv = [
            "-m", "allod.node.control", f"--home={self._home.root}", f"--url={self._url}",
            f"--workers={self._workers}", f"--ready-fd={ready_fd}",
        ]  # fmt: skip
        return Child("control", argv, processes.environment(), pass_fds=(ready_fd,))

    def _front(self, number: int) -> Child:
        argv = [
            "-m", "allod.front", f"--home={self._home.root}", f"--worker={number}",
            f"--listen={self._listen}",
        ]  # fmt: skip
        if self._certificate:
            argv += [f"--tls-cert={self._certificate[0]}", f"--tls-key={self._certificate[1]}"]
        return Child(f"front {number}", argv, processes.front_environment())

    def _await(self, pipe: _Lines, control: Child) -> Ready:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (line := pipe.next()) is None:
            time.sleep(_TICK_S)
            if self._stopping or not control.alive or time.monotonic() > deadline:
                code = control.process.poll() if control.process else None
                raise NotReady(
                    "node.not-ready",
                    f"the control process did not become ready ({processes.describe_exit(code)})",
                    hint=f"its reason is above or in {self._home.logs / 'node.log'}; then `allod doctor`",
                )
        return msgspec.json.decode(line, type=Ready)

    def _await_listening(self) -> None:
        host, _, port = self._listen.rpartition(":")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and not self._stopping:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
                return
            except OSError:
                time.sleep(_TICK_S)


class _Lines:
    """Lines from a pipe, without waiting for them."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._data = b""

    def next(self) -> bytes | None:
        with contextlib.suppress(BlockingIOError):
            self._data += os.read(self._fd, 65_536)
        line, end, rest = self._data.partition(b"\n")
        if not end:
            return None
        self._data = rest
        return line


def _say(text: str) -> None:
    print(f"allod: {text}", file=sys.stderr, flush=True)


def _remove_sockets(home: Home) -> None:
    """A socket file without a listener would only mislead. To be called by who holds the home's lock."""
    for path in home.run.glob("*.sock"):
        path.unlink(missing_ok=True)


def _check_paths(home: Home, config: Config) -> None:
    """Linux takes no longer path for a socket; said now, and not by whichever process binds it first."""
    ids = [f"{s.model}-{s.replicas - 1}" for s in config.services]
    paths = [home.run / "control.sock", *(home.run / "replicas" / i / "http.sock" for i in ids)]
    longest = max(paths, key=lambda path: len(bytes(path)))
    if (size := len(bytes(longest))) > limits.SOCKET_PATH_BYTES_MAX:
        raise Usage(
            "home.too-long",
            f"the path of the socket {longest} has {size} bytes; Linux takes {limits.SOCKET_PATH_BYTES_MAX}",
            hint="use a home with a shorter path, or a shorter model name",
        )


# --- the address -------------------------------------------------------------------------------------------


def _reserve(listen: str) -> socket.socket:
    """Binds the public address without listening, so that a taken port is an error now and not in a worker.

    SO_REUSEPORT lets this user's workers bind it too; an unlistened socket takes no connections.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise Usage(
            "listen.invalid", f"{listen!r} is not HOST:PORT", hint="for example --listen 127.0.0.1:8080"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        if int(port):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))  # without SO_REUSEPORT: fails where anything else listens
            probe.close()
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, int(port)))
    except OSError as e:
        raise NotReady(
            "node.port-taken",
            f"{listen} cannot be used: {e.strerror or e}",
            hint="choose another with --listen, or see who has it: ss -ltnp",
        ) from e
    return reserved


def _address(reserved: socket.socket) -> tuple[str, int]:
    name = reserved.getsockname()
    return str(name[0]), int(name[1])


def _certificate(
    home: Home, config: Config, address: tuple[str, int], *, self_signed: bool
) -> tuple[Path, Path] | None:
    if self_signed:
        return tls.self_signed(home.keys, address[0])
    if config.node.tls_cert and config.node.tls_key:
        return Path(config.node.tls_cert), Path(config.node.tls_key)
    return None


def _lock(home: Home) -> int:
    try:
        home.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(home.run / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise NotReady(
            "home.unwritable",
            f"{home.run} cannot be written to: {e.strerror}",
            hint="make its disk writable for this user, or choose another home with --home",
        ) from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise NotReady(
            "node.running",
            f"a node already runs from {home.root} (pid {running_pid(home)})",
            hint="`allod status` shows it, `allod down` stops it",
        ) from None
    os.set_inheritable(fd, False)
    _write_pid(fd)
    return fd


def _write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)


# --- going to the background --------------------------------------------------------------------------------

_parent_fd = -1


def _fork_away(home: Home) -> int | None:
    """Forks. In the parent: the pipe on which the child reports. In the child: None, output to node.log."""
    global _parent_fd  # noqa: PLW0603 — set once, between fork and run
    home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        return read
    os.setsid()
    os.close(read)
    _parent_fd = write
    log = os.open(home.logs / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    lock = os.open(home.run / "node.lock", os.O_RDWR)
    _write_pid(lock)
    os.close(lock)
    return None


def _pipe_to_parent(ready: Ready, url: str) -> None:
    os.write(_parent_fd, msgspec.json.encode((ready, url)))
    os.close(_parent_fd)


def _report_detached(fd: int, tell: Callable[[Ready, str], None]) -> int:
    data = b""
    while chunk := os.read(fd, 65_536):
        data += chunk
    os.close(fd)
    if not data:
        raise NotReady(
            "node.not-ready", "the node ended before it was ready", hint="the reason is in logs/node.log"
        )
    ready, url = msgspec.json.decode(data, type=tuple[Ready, str])
    tell(ready, url)
    return 0
