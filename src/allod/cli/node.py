"""`allod up` and `allod down`: the node's processes."""

from __future__ import annotations

import argparse

from allod.cli.init import lay_out
from allod.cli.output import Out
from allod.cli.parser import Verbs, count, home_of


def register(verbs: Verbs) -> None:
    up = verbs.add("up", "run the node of this home, until it is stopped", _up)
    up.add_argument("--listen", metavar="HOST:PORT", help="public address, instead of the configured one")
    up.add_argument(
        "--workers", metavar="N", type=count, help="front processes, instead of the configured number"
    )
    up.add_argument(
        "--tls-self-signed", action="store_true", help="TLS with a certificate made here, for trying only"
    )
    up.add_argument(
        "--detach", action="store_true", help="return once the node is ready, and leave it running"
    )
    verbs.add("down", "stop the node of this home and all its replicas", _down)


def _up(args: argparse.Namespace, out: Out) -> int:
    from allod.node import launcher

    home = home_of(args)
    if made := lay_out(home):
        out.say(f"made {len(made)} files and folders in {home.root}")
    return launcher.up(
        home,
        listen=args.listen,
        workers=args.workers,
        tls_self_signed=args.tls_self_signed,
        detach=args.detach,
        tell=lambda ready, url: _tell(out, url, ready.admin_key, ready.unready),
    )


def _tell(out: Out, url: str, admin_key: str | None, not_ready: list[str]) -> None:
    lines = [f"admin key (shown once, keep it now): {admin_key}"] if admin_key else []
    lines.append(f"allod is up: {url}   console: {url}/console")
    shown_once = {"admin_key": admin_key} if admin_key else {}
    out.result({"url": url, "console": f"{url}/console", **shown_once, "not_ready": not_ready}, lines)
    for line in not_ready:
        out.say(f"not ready yet: {line}")


def _down(args: argparse.Namespace, out: Out) -> int:
    from allod.node import launcher

    home = home_of(args)
    was_running = launcher.running_pid(home) is not None
    code = launcher.down(home)
    out.result({"stopped": was_running}, [] if was_running else ["no node was running"])
    if was_running:
        out.say("stopped")
    return code
