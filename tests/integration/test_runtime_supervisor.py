"""The supervisor with real processes: crashes, kill -9 of either side, adoption, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import allod
from allod.clock import SystemClock
from allod.engines.launch import LaunchSpec
from allod.errors import NotReady
from allod.runtime import health, process, procfs, sandbox
from allod.runtime.supervisor import ReplicaState, Supervisor, kill_recorded

PROGRAM = Path(__file__).parents[1] / "unit/runtime/replica_program.py"
SOURCE = Path(allod.__file__).parents[1]
UNSEALED = sandbox.SandboxReport(sealed=False)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("n")


@pytest.fixture(params=["sealed", "unsealed"])
def report(request: pytest.FixtureRequest) -> sandbox.SandboxReport:
    if request.param == "unsealed":
        return UNSEALED
    found = sandbox.probe()
    assert found.sealed, found.problem
    return found


@pytest.fixture
async def supervisor(home: Path, report: sandbox.SandboxReport) -> AsyncIterator[Supervisor]:
    one = Supervisor(home / "run", home / "logs", SystemClock(), report)
    yield one
    await one.stop_all()
    assert remains(home) == []


def spec(home: Path, id: str = "a", *flags: str, **fields: object) -> LaunchSpec:
    socket = home / "run" / "replicas" / id / "http.sock"
    argv = (sys.executable, str(PROGRAM), str(socket), *flags)
    values = {"id": id, "service": "s", "argv": argv, "socket": socket, "read_only": (PROGRAM,)} | fields
    return LaunchSpec(**values)  # type: ignore[arg-type]


def remains(home: Path) -> list[procfs.Pid]:
    return list(procfs.marked(f"ALLOD_REPLICA={home}/".encode()))


def soon() -> float:
    return time.monotonic() + 10


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)


async def test_a_replica_becomes_ready_and_is_gone_without_trace(home: Path, supervisor: Supervisor) -> None:
    seen: list[ReplicaState] = []
    supervisor.subscribe(seen.append)
    await supervisor.ensure([spec(home, "a", "--child"), spec(home, "b")])
    await supervisor.wait_ready("a", soon())
    await supervisor.wait_ready("b", soon())
    a, b = supervisor.views()
    assert (a.state, a.restarts, a.reason) == ("ready", 0, "")
    assert a.rss_bytes is not None
    assert a.rss_bytes > 5_000_000
    assert [s.state for s in seen if s.id == "a"] == ["ready"]
    await supervisor.ensure([spec(home, "b")])
    assert [v.pid for v in supervisor.views()] == [b.pid], "the other one was left alone"
    assert not (home / "run/replicas/a").exists()
    await supervisor.stop_all()
    assert remains(home) == []
    assert list((home / "run/replicas").iterdir()) == []
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [c for c in children if b") Z" in Path(f"/proc/{c}/stat").read_bytes()]


async def test_a_changed_spec_is_a_new_process(home: Path, supervisor: Supervisor) -> None:
    await supervisor.ensure([spec(home)])
    await supervisor.wait_ready("a", soon())
    first = supervisor.views()[0].pid
    await supervisor.ensure([spec(home, env={"X": "1"})])
    await supervisor.wait_ready("a", soon())
    assert supervisor.views()[0].pid not in (first, None)


async def test_kill_9_of_the_replica_brings_it_back(home: Path, supervisor: Supervisor) -> None:
    await supervisor.ensure([spec(home)])
    await supervisor.wait_ready("a", soon())
    first = supervisor.views()[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: supervisor.views()[0].state == "failed")
    assert "SIGKILL" in supervisor.views()[0].reason
    await supervisor.wait_ready("a", soon())
    again = supervisor.views()[0]
    assert again.pid != first
    assert again.restarts == 1
    assert len(remains(home)) <= 3, "the first one is wholly gone"


async def test_a_command_that_dies_is_noticed_though_it_left_a_child(
    home: Path, supervisor: Supervisor
) -> None:
    await supervisor.ensure([spec(home, "a", "--child")])
    await supervisor.wait_ready("a", soon())
    first = supervisor.views()[0].pid
    for one in remains(home):
        if Path(f"/proc/{one.pid}/cmdline").read_bytes().startswith(sys.executable.encode()):
            os.kill(one.pid, signal.SIGKILL)
    await eventually(lambda: supervisor.views()[0].state == "failed", 1.0)
    await supervisor.wait_ready("a", soon())
    assert supervisor.views()[0].pid != first


async def test_a_crash_loop_slows_down_and_says_the_last_line(home: Path, supervisor: Supervisor) -> None:
    began = time.monotonic()
    await supervisor.ensure([spec(home, "a", "--crash")])
    with pytest.raises(NotReady, match="unexpected end of file") as e:
        await supervisor.wait_ready("a", time.monotonic() + 60)
    assert e.value.code == "replica.not-ready"
    assert time.monotonic() - began > 1.4, "0.5 s and 1 s of pauses before the third start"
    view = supervisor.views()[0]
    assert view.reason == "exit status 3: weights.gguf: unexpected end of file"
    assert view.restarts == 2


async def test_never_healthy_is_ended_and_said(home: Path, supervisor: Supervisor) -> None:
    await supervisor.ensure([spec(home, "a", "--never-ready", ready_timeout_s=0.6)])
    await eventually(lambda: supervisor.views()[0].state == "failed")
    assert supervisor.views()[0].reason == "was not ready within 1 s: /health answered 503"
    assert remains(home) == []
    with pytest.raises(NotReady):
        await supervisor.wait_ready("a", time.monotonic())


async def test_a_missing_program_is_named(home: Path, supervisor: Supervisor) -> None:
    await supervisor.ensure([spec(home, argv=("/usr/bin/no-such-engine",))])
    await eventually(lambda: supervisor.views()[0].state == "failed")
    assert "/usr/bin/no-such-engine" in supervisor.views()[0].reason
    assert "No such file" in supervisor.views()[0].reason


async def test_a_replica_deaf_to_sigterm_is_killed(
    home: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.Running.terminate, "__defaults__", (0.3,))
    await supervisor.ensure([spec(home, "a", "--ignore-term")])
    await supervisor.wait_ready("a", soon())
    await supervisor.stop_all()
    assert remains(home) == []


async def test_its_log_stays_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from allod.runtime import logs

    log = home / "a.log"
    log.write_bytes(b"x" * 100)
    assert not logs.rotate(log, 100)
    with log.open("ab") as f:
        f.write(b"last\n")
        f.flush()
        assert logs.rotate(log, 100)
        f.write(b"goes on\n")
    assert log.read_bytes() == b"goes on\n"
    assert (home / "a.log.1").read_bytes().endswith(b"last\n")


OWNER = """
import asyncio, sys, time
from pathlib import Path
import msgspec
from allod.clock import SystemClock
from allod.engines.launch import LaunchSpec
from allod.runtime import sandbox
from allod.runtime.supervisor import Supervisor
async def main():
    home = Path(sys.argv[1])
    spec = msgspec.json.decode(sys.argv[2], type=LaunchSpec, dec_hook=lambda t, v: Path(v))
    report = sandbox.probe() if sys.argv[3] == "sealed" else sandbox.SandboxReport(sealed=False)
    s = Supervisor(home / "run", home / "logs", SystemClock(), report)
    await s.ensure([spec])
    await s.wait_ready(spec.id, time.monotonic() + 20)
    print(s.views()[0].pid, flush=True)
    await asyncio.sleep(1000)
import uvloop
uvloop.run(main())
"""


def own_elsewhere(home: Path, wanted: LaunchSpec, report: sandbox.SandboxReport) -> int:
    """Starts a replica from another process, kills that process with -9, and gives the replica's pid."""
    import msgspec

    argv = [sys.executable, "-c", OWNER, str(home), msgspec.json.encode(wanted, enc_hook=str).decode()]
    argv.append("sealed" if report.sealed else "unsealed")
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    return pid


async def test_kill_9_of_the_supervisor_and_the_next_one_adopts(
    home: Path, report: sandbox.SandboxReport, supervisor: Supervisor
) -> None:
    wanted = spec(home)
    pid = own_elsewhere(home, wanted, report)
    assert await health.ask(wanted.socket, "/health", 5) == "", "it goes on answering"
    await supervisor.ensure([wanted])
    await supervisor.wait_ready("a", soon())
    assert supervisor.views()[0].pid == pid
    assert supervisor.views()[0].restarts == 0
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: supervisor.views()[0].state == "failed")
    await supervisor.wait_ready("a", soon())
    assert supervisor.views()[0].pid != pid


async def test_a_changed_spec_is_not_adopted(
    home: Path, report: sandbox.SandboxReport, supervisor: Supervisor
) -> None:
    pid = own_elsewhere(home, spec(home), report)
    await supervisor.ensure([spec(home, env={"CHANGED": "1"})])
    await supervisor.wait_ready("a", soon())
    assert supervisor.views()[0].pid != pid
    assert procfs.identify(pid) is None


async def test_a_record_with_a_reused_pid_harms_nobody(home: Path, report: sandbox.SandboxReport) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    me = procfs.identify(bystander.pid)
    assert me is not None
    folder = home / "run/replicas/a"
    folder.mkdir(parents=True)
    stale = procfs.Pid(me.pid, me.started - 1)
    process.write_record(
        folder,
        process.Record(
            id="a", spec=process.digest_of(spec(home)), boot=procfs.boot_id(), leader=stale, outer=stale,
            sealed=report.sealed, socket=str(folder / "http.sock"),
        ),
    )  # fmt: skip
    one = Supervisor(home / "run", home / "logs", SystemClock(), report)
    await one.ensure([spec(home)])
    await one.wait_ready("a", soon())
    assert one.views()[0].pid != bystander.pid
    await one.stop_all()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_down_without_a_control_process_leaves_nothing(home: Path, report: sandbox.SandboxReport) -> None:
    own_elsewhere(home, spec(home, "a", "--child"), report)
    assert remains(home)
    assert kill_recorded(home / "run") == 1
    assert remains(home) == []
    assert list((home / "run/replicas").iterdir()) == []


def test_a_replica_without_a_record_is_found_all_the_same(home: Path, report: sandbox.SandboxReport) -> None:
    own_elsewhere(home, spec(home, "a", "--child"), report)
    (home / "run/records/a.json").unlink()
    assert kill_recorded(home / "run") == 0
    assert remains(home) == []
