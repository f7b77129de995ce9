"""One replica as processes: start it, recognise it again, end it with everything below it.

A sealed replica is two processes of ours: bubblewrap outside, and its child, the init of the replica's own
process namespace. That child is the `leader`: when it dies, the kernel kills all that is inside. An unsealed
replica's leader is the command itself, which leads its own session.

A record, `run/records/<id>.json`, lets a later supervisor recognise a living replica. It is not beside the
socket: that folder is the replica's to write in, and nothing that stands there is read or believed. Between
the start and the record a kill -9 of the supervisor could lose it; the marker in every replica's environment
finds those as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec

from allod import digest, limits
from allod.engines.launch import LaunchSpec
from allod.errors import NotReady
from allod.runtime import procfs, sandbox
from allod.runtime.procfs import Pid

_RECORDS = "records"
_MARKER = "ALLOD_REPLICA"
_INFO_TIMEOUT_S = 5.0
_SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un.sun_path with its final zero


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a running replica, on disk."""

    id: str
    spec: str  # digest of its LaunchSpec
    boot: str
    leader: Pid
    outer: Pid  # bubblewrap; the leader itself where the replica is not sealed
    sealed: bool
    socket: str


class Running:
    """A living replica, watched. It has ended as soon as its leader or bubblewrap outside has.

    Bubblewrap leaves when the command ends, while its init inside would go on for whatever the command left
    behind; and of a killed bubblewrap the inside would remain. Either way the rest is killed at once.
    """

    def __init__(self, record: Record, popen: subprocess.Popen[bytes] | None) -> None:
        """Raises ProcessLookupError where the leader of `record` is not alive."""
        self.record = record
        self._popen = popen
        self._fds: list[int] = []
        self.ended = asyncio.Event()
        if not procfs.alive(record.leader):
            raise ProcessLookupError(record.leader.pid)
        loop = asyncio.get_running_loop()
        for process in {record.leader, record.outer}:
            if (fd := procfs.open_pidfd(process)) is not None:
                self._fds.append(fd)
                loop.add_reader(fd, self._on_exit)
            elif popen is not None:
                loop.call_soon(self._on_exit)

    async def exit_reason(self) -> str:
        """Waits for the end. Leaves no zombie. Says how it ended, as far as a parent can know."""
        await self.ended.wait()
        if self._popen is None:
            return "ended"
        return describe_exit(await asyncio.to_thread(self._popen.wait))

    async def terminate(self, grace_s: float = limits.STOP_GRACE_S) -> None:
        """SIGTERM to the command, SIGKILL to all of it after `grace_s`. Returns when nothing is left."""
        leader = self.record.leader
        # The init of a process namespace ignores SIGTERM; what runs below it is to hear of it.
        targets = procfs.children(leader.pid) if self.record.sealed else (leader.pid,)
        for pid in targets:
            if process := procfs.identify(pid):
                procfs.signal_process(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), grace_s)
        kill(self.record)
        await self.exit_reason()

    def _on_exit(self) -> None:
        for fd in self._fds:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._fds.clear()
        kill(self.record)
        self.ended.set()


async def start(spec: LaunchSpec, log: Path, *, bwrap: str | None) -> Running:
    """Starts a replica, sealed if `bwrap` names bubblewrap. Raises NotReady `replica.not-started`."""
    folder = spec.socket.parent
    if len(os.fsencode(spec.socket)) > _SOCKET_PATH_BYTES_MAX:
        raise NotReady(
            "replica.socket-path",
            f"the path of its socket is longer than {_SOCKET_PATH_BYTES_MAX} bytes: {spec.socket}",
            hint="use a node home with a shorter path (--home)",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec.socket.unlink(missing_ok=True)
    env = sandbox.environment(spec) | {_MARKER: f"{folder}/"}
    try:
        if bwrap is None:
            popen = _spawn(sandbox.bounded(spec), env, log, ())
            leader = popen.pid
        else:
            popen, leader = await _start_sealed(spec, bwrap, env, log)
        outer, inner = procfs.identify(popen.pid), procfs.identify(leader)
        if outer is None or inner is None:
            popen.kill()
            kill_strays(folder)
            raise NotReady("replica.not-started", f"ended at once: {describe_exit(popen.wait())}")
        record = Record(
            id=spec.id, spec=digest_of(spec), boot=procfs.boot_id(), leader=inner, outer=outer,
            sealed=bwrap is not None, socket=str(spec.socket),
        )  # fmt: skip
        write_record(folder, record)
        return Running(record, popen)
    except OSError as e:
        raise NotReady(
            "replica.not-started",
            f"{spec.argv[0]} cannot be started: {e.strerror or e}",
            hint="see `allod doctor`",
        ) from e


async def _start_sealed(
    spec: LaunchSpec, bwrap: str, env: dict[str, str], log: Path
) -> tuple[subprocess.Popen[bytes], int]:
    read, write = os.pipe()
    try:
        popen = _spawn(sandbox.arguments(spec, program=bwrap, info_fd=write), env, log, (write,))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    try:
        info = await asyncio.wait_for(asyncio.to_thread(_read_all, read), _INFO_TIMEOUT_S)
        return popen, int(json.loads(info)["child-pid"])
    except (TimeoutError, ValueError, KeyError) as e:
        popen.kill()
        code = await asyncio.to_thread(popen.wait)
        raise NotReady(
            "replica.not-started",
            f"the sandbox did not start: {describe_exit(code)}",
            hint="its reason is in the replica's log; then `allod doctor`",
        ) from e


def _spawn(argv: list[str], env: dict[str, str], log: Path, fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            # A file and not a pipe: a replica outlives the supervisor that would have read the pipe.
            stdout=out,
            stderr=out,
            pass_fds=fds,
            start_new_session=True,
        )
    finally:
        os.close(out)


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as f:
        return f.read()


def kill(record: Record) -> None:
    """SIGKILL to a replica and all below it. Silent where nothing is left."""
    if record.boot != procfs.boot_id():
        return
    group = () if record.sealed else _session(record.leader.pid)
    for process in (record.leader, record.outer, *group):
        procfs.signal_process(process, signal.SIGKILL)


def kill_strays(folder: Path, known: frozenset[Pid] = frozenset()) -> int:
    """SIGKILL to every process that was started as a replica in or below `folder` and is not `known`."""
    marker = f"{_MARKER}={folder}/".encode()
    strays = [p for p in procfs.marked(marker) if p not in known]
    return sum(procfs.signal_process(p, signal.SIGKILL) for p in strays)


def _session(leader: int) -> tuple[Pid, ...]:
    """The other members of an unsealed replica's session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != leader:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == leader and (one := procfs.identify(int(entry.name))):
                    found.append(one)
    return tuple(found)


def digest_of(spec: LaunchSpec) -> str:
    """Two specs with the same digest start the same replica."""
    return digest.of(msgspec.json.encode(spec, order="deterministic", enc_hook=str))


def record_path(folder: Path) -> Path:
    """Where the record of the replica with its socket in `folder` (`run/replicas/<id>`) is kept."""
    return folder.parent.with_name(_RECORDS) / f"{folder.name}.json"


def write_record(folder: Path, record: Record) -> None:
    path = record_path(folder)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(msgspec.json.encode(record))
    scratch.replace(path)


def read_record(folder: Path) -> Record | None:
    """The record of the replica in `folder`; None where there is none or it cannot be read as one."""
    try:
        return msgspec.json.decode(record_path(folder).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def recorded(replicas: Path) -> list[Path]:
    """The folders below `replicas` (`run/replicas`) that exist, or that a record names."""
    records = replicas.with_name(_RECORDS)
    names = [p.name.removesuffix(".json") for p in records.glob("[!.]*.json")]
    if replicas.is_dir():
        names += [p.name for p in replicas.iterdir()]
    return [replicas / name for name in dict.fromkeys(names)]


def forget(folder: Path) -> None:
    """Removes what is left of a replica that has ended: its record and its folder. Follows no link."""
    record_path(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def describe_exit(code: int) -> str:
    """`1` -> `exit status 1`; `-9` and, as bubblewrap passes it on, `137` -> `killed by SIGKILL`."""
    number = -code if code < 0 else code - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {code}"
