"""What a sealed replica can do, asked from inside; and what `probe` says of a machine that cannot seal."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from allod.clock import SystemClock
from allod.engines.launch import LaunchSpec
from allod.runtime import sandbox
from allod.runtime.supervisor import Supervisor

PROGRAM = Path(__file__).parents[1] / "unit/runtime/replica_program.py"


class Inside:
    """One sealed replica beside another one, and a way to have Python evaluated in it."""

    def __init__(self, home: Path, spec: LaunchSpec) -> None:
        self.home = home
        self.spec = spec

    async def __call__(self, expression: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.spec.socket))
        writer.write(f"GET /look?python={quote(expression)} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
async def inside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    home = tmp_path_factory.mktemp("n")
    (home / "secret").write_text("the node's own")
    specs = []
    for id in ("a", "b"):
        path = home / "run" / "replicas" / id / "http.sock"
        argv = (sys.executable, str(PROGRAM), str(path))
        env = {"ONLY": "this"}
        specs.append(LaunchSpec(id=id, service="s", argv=argv, socket=path, env=env, read_only=(PROGRAM,)))
    report = sandbox.probe()
    assert report.sealed, report.problem
    supervisor = Supervisor(home / "run", home / "logs", SystemClock(), report)
    await supervisor.ensure(specs)
    for spec in specs:
        await supervisor.wait_ready(spec.id, time.monotonic() + 15)
    assert all(view.sealed for view in supervisor.views())
    yield Inside(home, specs[0])
    await supervisor.stop_all()


async def test_there_is_no_network(inside: Inside) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        port = listener.getsockname()[1]
        assert "ConnectionRefused" in await inside(f"socket.create_connection(('127.0.0.1', {port}), 2)")
        assert "OSError" in await inside("socket.create_connection(('192.0.2.1', 80), 2)")
        assert "gaierror" in await inside("socket.getaddrinfo('example.org', 80)")
        assert await inside("sorted(n for _, n in socket.if_nameindex())") == "['lo']"
    finally:
        listener.close()


async def test_nothing_but_its_own_folder_can_be_written(inside: Inside) -> None:
    own = inside.spec.socket.parent
    assert await inside(f"open('{own}/scratch', 'w').write('x')") == "1"
    assert await inside("open('/tmp/scratch', 'w').write('x')") == "1"
    assert not Path("/tmp/scratch").exists(), "its /tmp is private"
    for path in (
        "/usr/x",
        "/etc/x",
        f"{PROGRAM.parent}/x",
        str(PROGRAM),
        f"{sys.prefix}/x",
        "/proc/sys/kernel/x",
    ):
        said = await inside(f"open('{path}', 'w')")
        # A checkout below /tmp lies under the replica's private one: it may write there, and nobody sees it.
        private = path.startswith("/tmp/") and not Path(path).exists()
        assert "Error" in said or private, (path, said)
    said = await inside(f"open('{inside.home}/x', 'w').write('x')")
    assert not (inside.home / "x").exists(), said


async def test_the_node_and_its_people_are_invisible(inside: Inside) -> None:
    assert "FileNotFoundError" in await inside(f"open('{inside.home}/secret')")
    assert await inside(f"os.listdir('{inside.home}')") == "['run']"
    assert await inside(f"os.listdir('{inside.home}/run/replicas')") == "['a']", "not the other replica"
    for path in (
        "/home",
        "/var",
        "/etc/passwd",
        "/etc/shadow",
        "/run",
        "/root/.ssh",
        "/root/.bashrc",
        "/sys",
    ):
        assert await inside(f"os.path.exists('{path}')") == "False", path
    assert await inside("[p for p in os.listdir('/proc') if p.isdigit() and int(p) > 20]") == "[]"


async def test_it_is_nobody_and_can_become_nobody_else(inside: Inside) -> None:
    assert await inside("(os.getuid(), os.getgid())") == "(65534, 65534)"
    status = await inside("open('/proc/self/status').read()")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\\t0000000000000000" in status
    assert "NoNewPrivs:\\t1" in status
    assert await inside("subprocess.run(['unshare', '-U', 'true'], stderr=-3).returncode") == "1"
    assert await inside("subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp'], stderr=-3).returncode") != "0"


async def test_its_environment_is_its_own(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    names = await inside("sorted(os.environ)")
    assert names == "['ALLOD_REPLICA', 'HOME', 'LANG', 'ONLY', 'PATH', 'PWD', 'USER']"


async def test_its_environment_is_not_on_any_command_line(inside: Inside) -> None:
    record = (inside.home / "run/records/a.json").read_text()
    assert "this" not in record
    assert "ONLY" not in " ".join(sandbox.arguments(inside.spec, program="bwrap"))


def test_a_machine_without_bubblewrap_is_told_what_to_install() -> None:
    report = sandbox.probe(path="/nowhere")
    assert not report.sealed
    assert "bubblewrap is not installed" in report.problem
    assert "apt-get install bubblewrap" in report.hint


def test_a_bubblewrap_that_fails_is_not_believed(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    report = sandbox.probe(path=str(tmp_path))
    assert not report.sealed
    assert "No permissions" in report.problem
    assert report.hint
