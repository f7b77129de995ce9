"""`allod ledger`: the log of all receipts. `verify`, `fsck` and `witness` need no node and no home."""

from __future__ import annotations

import argparse
import fcntl
import os
from pathlib import Path

from allod.cli.admin import Admin
from allod.cli.output import Out
from allod.cli.parser import Parser, Verbs, home_of
from allod.cli.receipt import read_keys
from allod.clock import SystemClock
from allod.errors import Integrity, NotFound, NotReady, Usage
from allod.ledger import checkpoint as cp
from allod.ledger import tile as tiles
from allod.ledger.edge import Edge
from allod.ledger.fsck import fsck
from allod.ledger.store import CHECKPOINT, COSIGNED, LOCK, Store
from allod.ledger.witness import Witness, serve
from allod.signing import COSIGNATURE, VKey, load_or_generate


def register(verbs: Verbs) -> None:
    under = verbs.group(
        "ledger", "the log of all receipts: verify, show its head, check its files, witness another"
    )
    verify = under.add(
        "verify", "rebuild the tree from the logged receipts and compare it with the signed head", _verify
    )
    _folder(verify)
    under.add("checkpoint", "print the signed head of the log", _checkpoint)
    check = under.add("fsck", "check every byte of the ledger's files and name what is damaged", _fsck)
    _folder(check)
    witness = under.add(
        "witness", "cosign the checkpoints of somebody else's log (C2SP tlog-witness)", _witness
    )
    witness.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="where it remembers what it cosigned"
    )
    witness.add_argument(
        "--log",
        action="append",
        required=True,
        metavar="KEY",
        help="verifier key of a log, or a file of them; may be repeated",
    )
    witness.add_argument(
        "--name", default="witness.localhost", help="name of its own key, where one has to be made"
    )
    witness.add_argument(
        "--listen", default="127.0.0.1:8089", metavar="HOST:PORT", help="default: 127.0.0.1:8089"
    )


def _folder(parser: Parser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, help="the ledger (default: the home's)")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="KEY",
        help="verifier key of the log, or a file of them (default: the home's keys/ledger.pub)",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="KEY",
        help="verifier key of a witness, or a file of them",
    )


def _inputs(args: argparse.Namespace) -> tuple[Path, list[VKey], list[VKey]]:
    folder = args.folder or home_of(args).ledger
    if not (folder / CHECKPOINT).exists():
        raise NotFound("ledger.absent", f"{folder} holds no ledger", hint="name its folder, or: allod up")
    return folder, read_keys(args.key or [str(home_of(args).ledger_pub)]), read_keys(args.witness)


def _verify(args: argparse.Namespace, out: Out) -> int:
    folder, keys, witnesses = _inputs(args)
    verified = _rebuilt(folder, tuple(keys), tuple(witnesses))
    checkpoint = verified.checkpoint
    value = {
        "ok": True,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "log_keys": [str(k) for k in verified.log],
        "witnesses": [k.name for k in verified.witnesses],
    }
    lines = [
        f"{out.mark(True)}{checkpoint.origin}: {checkpoint.size} receipts lead to the signed root",
        f"{out.mark(True)}signed with {len(verified.log)} of {len(keys)} keys of the log",
        *(f"{out.mark(True)}cosigned by witness {k.name}" for k in verified.witnesses),
    ]
    out.result(value, lines)
    return 0


def _rebuilt(folder: Path, keys: tuple[VKey, ...], witnesses: tuple[VKey, ...]) -> cp.Verified:
    """The newest signed head, once the leaves on disk were found to lead to it. Raises Integrity."""
    name = COSIGNED if witnesses and (folder / COSIGNED).exists() else CHECKPOINT
    verified = cp.verify((folder / name).read_bytes(), keys, witnesses)
    store, edge = Store(folder), Edge.empty()
    for tile in tiles.tiles(verified.checkpoint.size):
        if tile.level == tiles.ENTRIES:
            edge.append(store.leaves(tile)[: tile.width])
    if edge.root() != verified.checkpoint.root:
        raise Integrity(
            "ledger.wrong-root",
            "the receipts on disk do not lead to the signed root",
            hint="allod ledger fsck names what is damaged",
        )
    return verified


def _checkpoint(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    admin = Admin(home)
    if admin.running:
        note = admin.raw("/admin/v1/checkpoint")
    else:
        try:
            note = (home.ledger / CHECKPOINT).read_bytes()
        except FileNotFoundError as e:
            raise NotFound("ledger.absent", f"{home.ledger} holds no ledger", hint="allod up") from e
        out.say("no node is running: this is the last checkpoint on disk")
    out.result({"checkpoint": note.decode()}, [note.decode().rstrip("\n")])
    return 0


def _fsck(args: argparse.Namespace, out: Out) -> int:
    folder, keys, witnesses = _inputs(args)
    lock = _hold(folder)
    try:
        report = fsck(folder, keys, witnesses)
    finally:
        os.close(lock)
    lines = [f"{out.mark(False)}{f.path} at {f.where}: {f.reason}" for f in report.findings]
    lines.append(
        f"{report.size} receipts, {len(report.findings) or 'no'} damage{'s' * (len(report.findings) > 1)}"
    )
    out.result({"ok": report.ok, "size": report.size, "findings": report.findings}, lines)
    return 0 if report.ok else Integrity.exit_code


def _hold(folder: Path) -> int:
    """Keeps a node from appending meanwhile. NotReady `ledger.busy` where one is."""
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(fd)
        hint = "allod ledger verify works while it runs; for every byte: allod down, or check a copy"
        raise NotReady("ledger.busy", "a node is appending to this ledger", hint=hint) from e
    return fd


def _witness(args: argparse.Namespace, out: Out) -> int:
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdigit():
        raise Usage(
            "listen.invalid", f"{args.listen!r} is not HOST:PORT", hint="for example --listen 127.0.0.1:8089"
        )
    args.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = load_or_generate(args.state / "witness.key", args.name, COSIGNATURE)
    witness = Witness(args.state, [signer], read_keys(args.log), SystemClock())
    try:
        server = serve(witness, host.strip("[]"), int(port))
    except OSError as e:
        raise NotReady(
            "witness.port-taken",
            f"{args.listen} cannot be used: {e.strerror}",
            hint="choose another with --listen",
        ) from e
    url = f"http://{server.server_address[0]!s}:{server.server_address[1]}"
    out.result({"key": str(signer.vkey), "url": url}, [str(signer.vkey)])
    out.say(f"listening on {url}; the log's operator adds this key and address as [[ledger.witness]]")
    with server:
        server.serve_forever()
    return 0
