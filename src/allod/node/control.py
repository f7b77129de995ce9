"""The control process: serves the `App` on its two sockets, to the fronts and to the operator.

`run/control.sock` takes what the fronts hand over: the public API, receipts, the console. `run/admin.sock` is
the same administration for whoever may open it, which is the user that runs the node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route

from allod.api.apps import admin_app, public_app
from allod.app.app import App
from allod.clock import SystemClock
from allod.config import Home
from allod.config import load as load_config
from allod.console.app import console_app
from allod.console.session import KEY_BYTES_MIN
from allod.errors import AllodError
from allod.identity.caller import Caller, Role
from allod.identity.roles import OPERATOR
from allod.ledger import files

SETTLE_S = 60.0  # small models are loaded by then; a large one goes on loading while the node serves
_BACKLOG = 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m allod.node.control", description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--url", required=True, help="the public address, for people")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--ready-fd", type=int)
    args = parser.parse_args()
    try:
        uvloop.run(run(Home.of(args.home), args.url, args.workers, args.ready_fd))
    except AllodError as e:
        print(f"allod control: {e}" + (f"\n  next: {e.hint}" if e.hint else ""), file=sys.stderr, flush=True)
        return e.exit_code
    return 0


async def run(home: Home, url: str, workers: int, ready_fd: int | None) -> None:
    """Serves until SIGTERM; replicas end with it, and survive anything that is not SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(home, load_config(home), url, workers, SystemClock(), tell_first_key=_print_first_key)
    first_key = await app.start()
    operator = Caller(key_id=OPERATOR, organisation="default", project="default", role=Role.OWNER)
    servers = [
        _Server(_config(_public(app, _session_key(home)))),
        _Server(_config(admin_app(app, operator))),
    ]
    sockets = [_listen(home.run / "control.sock"), _listen(home.admin_socket)]
    serving = [
        asyncio.create_task(server.serve(sockets=[s])) for server, s in zip(servers, sockets, strict=True)
    ]
    reporting = asyncio.create_task(_report(app, ready_fd, first_key)) if ready_fd is not None else None
    await stop.wait()
    if reporting is not None:
        reporting.cancel()
    for server in servers:
        server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*serving)
    await app.stop()


def _print_first_key(secret: str) -> None:
    """A key that comes late is shown to who is looking; into a log it does not go."""
    if sys.stderr.isatty():
        told = f"admin key (shown once, keep it now): {secret}"
    else:
        told = (
            "the first admin key was made unseen; your own: allod key create --project default --role owner"
        )
    print(told, file=sys.stderr, flush=True)


async def _report(app: App, fd: int, first_key: str | None) -> None:
    """Tells the launcher twice: that the fronts can start, and then what the replicas have come to."""
    os.write(fd, msgspec.json.encode({"admin_key": first_key}) + b"\n")
    unready = await app.settled(within_s=SETTLE_S)
    os.write(fd, msgspec.json.encode({"unready": unready}) + b"\n")
    os.close(fd)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: this process has one, for both servers."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips="*",  # only the fronts can open the socket; they set the field themselves
        timeout_graceful_shutdown=5,
        backlog=_BACKLOG,
    )


def _public(app: App, session_key: bytes) -> Starlette:
    public = public_app(app)
    public.router.routes[:0] = [
        Route("/", _to_console),
        Route("/console", _to_console),
        Mount("/console", console_app(app, session_key)),
    ]
    return public


async def _to_console(request: Request) -> RedirectResponse:
    return RedirectResponse("/console/")


def _session_key(home: Home) -> bytes:
    """Signs console sessions; made once, so that a restart does not sign people out.

    One that a full disk cut short is replaced: nobody holds a session under it yet.
    """
    path = home.keys / "console.key"
    key = path.read_bytes() if path.exists() else b""
    if len(key) < KEY_BYTES_MIN:
        key = secrets.token_bytes(KEY_BYTES_MIN)
        files.replace(path, key, mode=0o600)
    return key


def _listen(path: Path) -> socket.socket:
    """A Unix socket of this user alone. A stale one is replaced: the home's lock says who may."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(_BACKLOG)
    return listening


if __name__ == "__main__":
    sys.exit(main())
