"""A node's home with a front worker and scripted model servers, all of them real processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from allod.front.snapshot import KeyEntry, ProjectEntry, ReplicaEntry, ServiceEntry, Snapshot
from allod.identity.caller import Role
from allod.ledger import segment
from allod.ledger.statement import Statement, decode
from allod.policy import pack
from allod.policy.decision import DataClass
from allod.sites.facts import Fact, Site

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
SECRET = "s" * 43
KEY = f"allod_develop22222_{SECRET}"
AUDITOR_KEY = f"allod_auditor22222_{SECRET}"
EXPIRED_KEY = f"allod_expired22222_{SECRET}"
STRICT_KEY = f"allod_strict222222_{SECRET}"

_OPEN_POLICY = """
@id("everyone-everywhere")
@reason("a test's rule")
permit (principal, action, resource);
@id("restricted-stays")
@reason("restricted data stays on this machine")
forbid (principal, action, resource)
when { context.data_class >= 3 && !resource.local };
"""


def site(name: str, *, local: bool) -> Site:
    unknown: Fact[Any] = Fact(value=None)
    return Site(
        name=name, local=local, operator=Fact(value="Test SE"), establishment=Fact(value="DE"),
        controllers=Fact(value=["DE"]), storage_countries=Fact(value=["DE"]),
        processing_countries=Fact(value=["DE"]),
        support_countries=Fact(value=["DE"]), cloud_act=Fact(value=False), fisa_702=Fact(value=False),
        retains_content=Fact(value=False), trains_on_content=Fact(value=False), certificates=unknown,
        transfer_basis=Fact(value="none-needed"),
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Home:
    """Call `replica` and `service`, then `start`. `stop` ends every process it started, by pid."""

    def __init__(self, root: Path, *, policy: str = _OPEN_POLICY) -> None:
        self.root = root
        self.run = root / "run"
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.policy = policy
        self.schema = pack_schema(root / "policy")
        self.version = 0
        self.sites = {"here": site("here", local=True)}
        self.projects = {
            "p1": ProjectEntry(
                id="p1", organisation="o1", default_class=DataClass.INTERNAL, floor_class=DataClass.PUBLIC
            ),
            "strict": ProjectEntry(
                id="strict",
                organisation="o1",
                default_class=DataClass.RESTRICTED,
                floor_class=DataClass.RESTRICTED,
            ),
        }
        self.keys: dict[str, KeyEntry] = {}
        self.key("develop22222", "p1", Role.DEVELOPER)
        self.key("auditor22222", "p1", Role.AUDITOR)
        self.key("expired22222", "p1", Role.DEVELOPER, expires_us=1)
        self.key("strict222222", "strict", Role.DEVELOPER)
        self.services: dict[str, ServiceEntry] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.front: subprocess.Popen[bytes] | None = None
        self.port = 0

    def key(self, key_id: str, project: str, role: Role, *, expires_us: int = 1 << 62) -> str:
        self.keys[key_id] = KeyEntry(
            key_id=key_id, secret_sha256=hashlib.sha256(SECRET.encode()).digest(), project=project, role=role,
            expires_us=expires_us,
        )  # fmt: skip
        return f"allod_{key_id}_{SECRET}"

    def replica(
        self, name: str, *, site_name: str = "here", upstream_model: str = "m", **more: Any
    ) -> ReplicaEntry:
        if site_name not in self.sites:
            self.sites[site_name] = site(site_name, local=False)
        return ReplicaEntry(
            id=name, site=site_name, socket=str(self.run / f"{name}.sock"), upstream_model=upstream_model,
            engine="test/1", engine_digest="sha256:" + "0" * 64, model_digest="sha256:" + "1" * 64, **more,
        )  # fmt: skip

    def service(
        self, model: str, *replicas: ReplicaEntry, kind: Any = "chat", aliases: tuple[str, ...] = ()
    ) -> None:
        self.services[model] = ServiceEntry(model=model, kind=kind, replicas=replicas, aliases=aliases)

    def publish(self) -> None:
        """Writes the next snapshot as control does: atomically."""
        self.version += 1
        snapshot = Snapshot(
            version=self.version, origin="test.example/log", keys=self.keys, projects=self.projects,
            sites=self.sites,
            services=self.services, policy_text=self.policy, policy_schema=self.schema,
        )  # fmt: skip
        fresh = self.run / "snapshot.new"
        fresh.write_bytes(msgspec.msgpack.encode(snapshot))
        fresh.rename(self.run / "snapshot.msgpack")

    def spawn(self, name: str, default: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
        """A scripted model server on the replica's socket."""
        path = self.run / f"{name}.sock"
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, str(HERE / "upstream.py"), f"--socket={path}", f"--name={name}",
             f"--log={self.root / (name + '.log')}", f"--default={json.dumps(default or {})}"],
        )  # fmt: skip
        self.processes[name] = process
        wait_for(path.exists)
        return process

    def start(self, *, timeouts: dict[str, Any] | None = None, tls: tuple[Path, Path] | None = None) -> None:
        if not (self.run / "snapshot.msgpack").exists():
            self.publish()
        self.start_front(timeouts=timeouts, tls=tls)

    def start_front(
        self, *, timeouts: dict[str, Any] | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.port = self.port or free_port()
        argv = [sys.executable, str(HERE / "front_process.py"), f"--home={self.root}", f"--port={self.port}",
                f"--timeouts={json.dumps(timeouts or {})}"]  # fmt: skip
        if tls:
            argv += [f"--tls-cert={tls[0]}", f"--tls-key={tls[1]}"]
        self.front = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(SRC)})
        wait_for(self.listening)

    def listening(self) -> bool:
        assert self.front is not None
        assert self.front.poll() is None, "the front died"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        for process in (self.front, *self.processes.values()):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.front, *self.processes.values()):
            if process is not None:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    # --- what was seen ---

    def seen(self, name: str) -> list[dict[str, Any]]:
        """The lines that the model server `name` has logged."""
        path = self.root / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def receipts(self) -> dict[str, Statement]:
        """Every ended record in any spool, by id."""
        return {e.id: decode(e.leaf) for e in spooled(self.root / "spool")}


def spooled(root: Path) -> list[segment.Entry]:
    entries = []
    for path in sorted(root.glob("*/*.seg")):
        data = memoryview(path.read_bytes())
        header = segment.read_header(bytes(data[: segment.HEADER_BYTES]))
        assert header is not None
        offset = segment.HEADER_BYTES
        base = header[0] * header[1]
        while (frame := segment.read_frame(data, offset, base)) is not None:
            assert isinstance(frame, segment.Frame), frame
            if frame.kind == segment.END:
                entries.append(segment.parse_end(frame.payload))
            offset = frame.end
    return entries


def pack_schema(folder: Path) -> str:
    pack.install(folder)
    return pack.load(folder).schema


def wait_for(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# --- clients ------------------------------------------------------------------------------------------------


class Answer:
    """One parsed HTTP/1.1 answer; `body` is without its chunk framing, `whole` whether its framing was
    complete.
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.whole = whole

    @property
    def code(self) -> str:
        """The stable code of a problem, in either dialect."""
        answer = json.loads(self.body)
        return str((answer.get("error") or answer)["code"])


def request(
    body: Any, *, path: str = "/v1/chat/completions", key: str = KEY, close: bool = True, **fields: str
) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"host": "test", "content-type": "application/json", "authorization": f"Bearer {key}"}
    head |= {name.replace("_", "-"): value for name, value in fields.items()}
    if close:
        head["connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items() if value)
    return f"POST {path} HTTP/1.1\r\n{lines}content-length: {len(raw)}\r\n\r\n".encode() + raw


def talk(port: int, data: bytes, *, eof: bool = False, timeout_s: float = 15.0) -> bytes:
    """Sends `data`, reads until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as s:
        try:
            s.sendall(data)
            if eof:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return drain(s)


def drain(s: socket.socket) -> bytes:
    out = b""
    try:
        while piece := s.recv(65536):
            out += piece
    except ConnectionResetError:
        pass
    return out


def answers(data: bytes) -> list[Answer]:
    """The answers in what a connection carried, in order."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if status == 100:
            continue
        if "chunked" in headers.get("transfer-encoding", ""):
            body, data, whole = _dechunk(data)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            whole = len(body) == length
        else:
            body, data, whole = data, b"", True
        found.append(Answer(status, headers, body, whole=whole))
    return found


def _dechunk(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, rest[2:], True
        body += rest[:length]
        data = rest[length + 2 :]
    return body, b"", False
