"""A front worker: one process, one loop, one spool.

It listens on the public address (shared with its siblings through SO_REUSEPORT) and on a socket for inner
calls. It starts without a snapshot, without control and without room on the disk, says so on /readyz, and
recovers from each by itself. SIGTERM drains: nothing new is accepted, what is in flight may finish within a
bound.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from allod import limits
from allod.clock import Clock, SystemClock
from allod.errors import AllodError, Usage
from allod.front.channel import Channel
from allod.front.client import ClientConnection
from allod.front.evidence import Evidence
from allod.front.problems import Problem
from allod.front.snapshot import Snapshot
from allod.front.upstream import Pool
from allod.front.world import MakeDecider, World
from allod.ledger.spool import Spool
from allod.policy.decide import Decider

_GC = (50_000, 20, 50)  # an exchange leaves no cycle behind: collecting as often as by default finds nothing
_SNAPSHOT = msgspec.msgpack.Decoder(Snapshot)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The front's bounds that a test has to shorten."""

    header_s: float = limits.HEADER_TIMEOUT_S
    body_idle_s: float = limits.BODY_IDLE_TIMEOUT_S
    body_grace_s: float = limits.BODY_GRACE_S
    body_bytes_per_s: float = limits.BODY_BYTES_PER_S_MIN
    keepalive_idle_s: float = limits.KEEPALIVE_IDLE_TIMEOUT_S
    client_stall_s: float = limits.CLIENT_STALL_TIMEOUT_S
    sweep_s: float = limits.SWEEP_INTERVAL_S
    drain_s: float = limits.DRAIN_S
    connections_max: int = limits.CONNECTIONS_PER_WORKER_MAX


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    home: Path
    worker: int
    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
    timeouts: Timeouts = Timeouts()


class Counts:
    """What this worker has done since it started."""

    __slots__ = ("exchanges", "outcomes")

    def __init__(self) -> None:
        self.exchanges = 0
        self.outcomes: dict[str, int] = {"answered": 0, "refused": 0, "failed": 0, "cancelled": 0}


class Worker:
    """What the connections of one process share. `run` is its life."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        make_decider: MakeDecider = Decider,
    ) -> None:
        self.settings = settings
        self.timeouts = settings.timeouts
        self.clock: Clock = clock or SystemClock()
        self.loop = asyncio.get_running_loop()
        self.now = time.monotonic
        self.world: World | None = None
        self.counts = Counts()
        self.connections: set[ClientConnection] = set()
        self.body_bytes = 0
        self.draining = False
        self.stop = asyncio.Event()
        run = settings.home / "run"
        self.control = Pool(str(run / "control.sock"))
        self.evidence = Evidence(lambda: Spool.open(settings.home / "spool", str(settings.worker)), self.loop)
        self.channel = Channel(run / "fronts.sock", settings.worker, self.load, self.counters)
        self._make_decider = make_decider
        self._snapshot_file = run / "snapshot.msgpack"
        self._snapshot_problem = "no snapshot has been written yet"

    # --- the snapshot ---

    def load(self) -> int:
        """Takes the snapshot file if it is newer. A file that can not be used leaves the old one in force."""
        version = self.world.version if self.world else 0
        try:
            snapshot = _SNAPSHOT.decode(self._snapshot_file.read_bytes())
            if snapshot.version > version:
                decider = self._make_decider(snapshot.policy_text, snapshot.policy_schema)
                self._apply(World(snapshot, decider, self.world.replicas if self.world else {}))
            self._snapshot_problem = ""
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, AllodError, ValueError) as e:
            self._snapshot_problem = f"the last snapshot could not be used ({type(e).__name__})"
            _say(f"front {self.settings.worker}: {self._snapshot_problem}: {e}")
        return self.world.version if self.world else 0

    def _apply(self, world: World) -> None:
        old, self.world = self.world, world
        if old is not None:
            for name, replica in old.replicas.items():
                if world.replicas.get(name) is not replica:
                    replica.pool.close()

    def no_snapshot(self) -> Problem:
        return Problem(
            503,
            "front.no-snapshot",
            "this node does not know its keys and rules yet",
            hint="Try again shortly; allod status shows the control process",
            retry_after_s=1,
        )

    # --- what is asked of it ---

    def readiness(self) -> tuple[int, bytes]:
        """Status and JSON body of /readyz."""
        try:
            self.evidence.check()
            spool = ""
        except Problem as problem:
            spool = problem.message
        checks = [
            {"name": "snapshot", "ok": self.world is not None, "detail": self._snapshot_problem},
            {"name": "spool", "ok": not spool, "detail": spool},
            {
                "name": "control",
                "ok": self.channel.connected,
                "detail": "" if self.channel.connected else "the control process is away; hot routes go on",
            },
        ]
        ready = self.world is not None and not spool and not self.draining
        return (200 if ready else 503), msgspec.json.encode({"ready": ready, "checks": checks})

    def counters(self) -> dict[str, Any]:
        now = self.now()
        world = self.world
        return {
            "exchanges": self.counts.exchanges,
            **self.counts.outcomes,
            "connections": len(self.connections),
            "snapshot": world.version if world else 0,
            "replicas": {
                r.id: {"breaker": r.breaker.state(now), "in_flight": r.inflight}
                for r in (world.replicas.values() if world else ())
            },
        }

    # --- its life ---

    async def run(self) -> None:
        """Serves until `stop` is set, then drains. Raises OSError where it can not listen."""
        self.load()
        servers = await self._listen()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC)
        tasks = [asyncio.ensure_future(self.channel.run()), asyncio.ensure_future(self._sweep())]
        try:
            await self.stop.wait()
            self.draining = True
            for server in servers:
                server.close()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            await self.evidence.close()

    async def _listen(self) -> list[asyncio.Server]:
        settings = self.settings
        context = None
        if settings.tls_cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        public = await self.loop.create_server(
            lambda: ClientConnection(self, inner=False),
            settings.host,
            settings.port,
            ssl=context,
            reuse_port=True,
            backlog=4096,
        )
        path = settings.home / "run" / f"front-{settings.worker}.sock"
        path.unlink(missing_ok=True)
        inner = await self.loop.create_unix_server(lambda: ClientConnection(self, inner=True), str(path))
        path.chmod(0o600)
        return [public, inner]

    async def _sweep(self) -> None:
        """One look at every connection's deadline, instead of a timer per request."""
        while True:
            await asyncio.sleep(self.timeouts.sweep_s)
            now = self.now()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.overdue()
            if self.evidence.failed is not None:
                self.stop.set()  # after a failed sync only a new process can promise anything about this disk

    async def _drain(self) -> None:
        for connection in [c for c in self.connections if c.idle]:
            connection.leave()
        deadline = self.now() + self.timeouts.drain_s
        while self.connections and self.now() < deadline:  # noqa: ASYNC110 — once, at the end
            await asyncio.sleep(0.02)
        for connection in tuple(self.connections):
            connection.abort()
        await asyncio.sleep(0)


async def serve(settings: Settings, *, make_decider: MakeDecider = Decider) -> None:
    """Runs a worker until SIGTERM or SIGINT."""
    worker = Worker(settings, make_decider=make_decider)
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.loop.add_signal_handler(number, worker.stop.set)
    await worker.run()


def main(argv: list[str] | None = None) -> int:
    """`python -m allod.front`. Returns the exit code: 0 after a drain, 3 where it could not listen."""
    parser = argparse.ArgumentParser(prog="python -m allod.front")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--listen", required=True, help="HOST:PORT")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    args = parser.parse_args(argv)
    try:
        settings = Settings(
            home=args.home,
            worker=args.worker,
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            **_address(args.listen),
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(settings))
    except Usage as e:
        _say(f"{e} {e.hint}")
        return e.exit_code
    except OSError as e:
        _say(f"front {args.worker} can not listen on {args.listen}: {e}")
        return 3
    return 0


def _address(listen: str) -> dict[str, Any]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise Usage(
            "listen.invalid", f"{listen!r} is not HOST:PORT", hint="for example --listen 127.0.0.1:8080"
        )
    return {"host": host.strip("[]"), "port": int(port)}


def _say(text: str) -> None:
    print(f"allod: {text}", file=sys.stderr, flush=True)
