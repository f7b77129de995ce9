"""A replica that has been taken over, and what it tries with the one folder that it may write to.

Each attempt is made from inside a really sealed process; what counts is the state of the machine outside.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from allod import limits
from allod.clock import SystemClock
from allod.engines.launch import LaunchSpec
from allod.runtime import procfs, sandbox
from allod.runtime.process import Running
from allod.runtime.supervisor import Supervisor, kill_recorded

PROGRAM = Path(__file__).parents[1] / "unit/runtime/replica_program.py"


class Taken:
    """One sealed replica, the means to have Python evaluated in it, and the supervisor outside."""

    def __init__(self, home: Path, report: sandbox.SandboxReport) -> None:
        self.home = home
        self.report = report
        self.folder = home / "run" / "replicas" / "a"
        path = self.folder / "http.sock"
        argv = (sys.executable, str(PROGRAM), str(path))
        self.spec = LaunchSpec(id="a", service="s", argv=argv, socket=path, read_only=(PROGRAM,))
        self.supervisor = self.another()
        self._orphans: list[Running] = []

    def another(self) -> Supervisor:
        return Supervisor(self.home / "run", self.home / "logs", SystemClock(), self.report)

    async def ready(self) -> None:
        await self.supervisor.ensure([self.spec])
        await self.supervisor.wait_ready("a", time.monotonic() + 20)

    async def __call__(self, expression: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.spec.socket))
        writer.write(f"GET /look?python={quote(expression)} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2].decode()

    async def dies(self) -> None:
        """Ends by itself, and is started again."""
        before = self.supervisor.views()[0]
        await self("os._exit(1)")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            view = self.supervisor.views()[0]
            if view.state == "ready" and view.pid != before.pid:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"it did not come back: {self.supervisor.views()}")

    def left_behind(self) -> None:
        """The control process is killed: its replica goes on, and whatever it plants is found by the next."""
        for slot in self.supervisor._slots.values():
            assert slot.task is not None
            assert slot.running is not None
            slot.task.cancel()
            self._orphans.append(slot.running)
        self.supervisor = self.another()

    async def buried(self) -> None:
        """What a new parent would do in place of the killed control process."""
        kill_recorded(self.home / "run")
        for running in self._orphans:
            await running.exit_reason()


@pytest.fixture
async def taken(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Taken]:
    report = sandbox.probe()
    assert report.sealed, report.problem
    taken = Taken(tmp_path_factory.mktemp("n"), report)
    await taken.ready()
    yield taken
    await taken.supervisor.stop_all()
    await taken.buried()


async def test_a_planted_link_makes_the_node_overwrite_nothing(taken: Taken) -> None:
    victim = taken.home / "ledger.key"
    victim.write_text("the log's key")
    for name in (".record.json", "record.json", "a.json", ".a.json", "http.sock.new"):
        await taken(f"os.symlink({str(victim)!r}, {str(taken.folder / name)!r})")
    await taken.dies()
    assert victim.read_text() == "the log's key"
    assert not victim.is_symlink()


async def test_a_forged_record_has_no_stranger_killed(taken: Taken) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        await asyncio.sleep(0.05)
        pid = procfs.identify(stranger.pid)
        assert pid is not None
        forged = (
            f'{{"id":"a","spec":"x","boot":"{procfs.boot_id()}","sealed":false,"socket":"",'
            f'"leader":{{"pid":{pid.pid},"started":{pid.started}}},'
            f'"outer":{{"pid":{pid.pid},"started":{pid.started}}}}}'
        )
        await taken(f"open({str(taken.folder / 'record.json')!r}, 'w').write({forged!r})")
        taken.left_behind()
        await taken.ready()
        assert stranger.poll() is None
        await taken.supervisor.stop_all()
        assert stranger.poll() is None
        assert kill_recorded(taken.home / "run") == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_pipe_or_an_endless_file_for_a_record_holds_nobody_up(taken: Taken) -> None:
    record = str(taken.folder / "record.json")
    for plant in (f"os.mkfifo({record!r})", f"os.symlink('/dev/zero', {record!r})"):
        await taken(f"os.path.lexists({record!r}) and os.unlink({record!r})")
        await taken(plant)
        taken.left_behind()
        async with asyncio.timeout(20):
            await taken.ready()
    assert await asyncio.wait_for(asyncio.to_thread(kill_recorded, taken.home / "run"), 20) == 1


async def test_what_its_links_point_to_outlives_its_folder(taken: Taken) -> None:
    kept = taken.home / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    for name in ("one", "two"):
        await taken(f"os.symlink({str(kept)!r}, {str(taken.folder / name)!r})")
    await taken.supervisor.ensure(())
    assert (kept / "file").read_text() == "x"
    assert not taken.folder.exists()


async def test_a_replica_whose_socket_is_a_link_does_not_pass_for_ready(taken: Taken) -> None:
    own = str(taken.spec.socket)
    await taken(f"(os.rename({own!r}, {own + '.real'!r}), os.symlink('http.sock.real', {own!r}))")
    deadline = time.monotonic() + 30
    while taken.supervisor.views()[0].state == "ready":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert "cannot be reached" in taken.supervisor.views()[0].reason


async def test_it_inherits_nothing_open(taken: Taken) -> None:
    found = await taken("[os.readlink(f'/proc/self/fd/{n}') for n in range(3)]")
    assert str(taken.home / "logs" / "a.log") in found
    others = await taken(
        "[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{n}') and int(n) > 2]"
    )
    assert "pipe:" not in others
    assert str(taken.home) not in others


async def test_no_abstract_socket_of_the_machine_is_in_reach(taken: Taken) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0allod-test-{os.getpid()}")
        listening.listen()
        said = await taken(f"socket.socket(socket.AF_UNIX).connect('\\0allod-test-{os.getpid()}')")
    assert "ConnectionRefused" in said


async def test_its_memory_file_systems_are_bounded(taken: Taken) -> None:
    mounts = await taken("[l.split()[1] for l in open('/proc/mounts') if l.split()[2] == 'tmpfs']")
    for mount in eval(mounts):
        size = await taken(
            f"(lambda s: 0 if s.f_flag & os.ST_RDONLY else s.f_blocks * s.f_frsize)(os.statvfs({mount!r}))"
        )
        assert int(size) <= limits.REPLICA_TMP_BYTES_MAX, (mount, size, mounts)


async def test_it_sees_no_other_process_and_cannot_signal_one(taken: Taken) -> None:
    pids = await taken("sorted(int(n) for n in os.listdir('/proc') if n.isdigit())")
    assert len(eval(pids)) <= 4, "bubblewrap's init, the replica, and nothing else"
    assert "ProcessLookupError" in await taken(f"os.kill({os.getpid()}, 9)")
    assert str(taken.home / "keys") not in await taken("open('/proc/mounts').read()")


async def test_its_processes_and_files_are_bounded(taken: Taken) -> None:
    limit = await taken("__import__('resource').getrlimit(__import__('resource').RLIMIT_NPROC)")
    assert limit == str((limits.REPLICA_PROCESSES_MAX, limits.REPLICA_PROCESSES_MAX))
    flood = f"os.truncate({str(taken.folder / 'flood')!r}, {limits.REPLICA_FILE_BYTES_MAX + 1})"
    made = f"open({str(taken.folder / 'flood')!r}, 'w').close()"
    await taken(made)
    assert "File too large" in await taken(flood)
