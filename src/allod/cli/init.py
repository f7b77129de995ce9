"""`allod init`: the home of a node. Makes what is missing and touches nothing that is there."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from allod import config, signing
from allod.cli.output import Out
from allod.cli.parser import Verbs, home_of
from allod.config import Home
from allod.errors import NotReady
from allod.ledger import files
from allod.models import trust
from allod.policy import pack


def register(verbs: Verbs) -> None:
    verbs.add("init", "make the home of a node", act)


def act(args: argparse.Namespace, out: Out) -> int:
    home = home_of(args)
    made = lay_out(home)
    lines = [f"{home.root} is ready."] if made else [f"{home.root} was ready already."]
    lines += [f"  made {path.relative_to(home.root)}" for path in made]
    origin = config.load(home).node.origin
    value = {"home": str(home.root), "origin": origin, "made": [str(p) for p in made]}
    out.result(value, lines)
    option = f" --home {home.root}" if args.home else ""
    out.say(f"next: declare this machine in {home.config_file}, then `allod up{option}`")
    return 0


def lay_out(home: Home) -> list[Path]:
    """Makes what a home misses; gives what was made. NotReady `home.not-writable`, Integrity on foreign keys.

    The log's keys are Ed25519 and ML-DSA-44, both under the node's origin; `ledger.pub` has both in public.
    The key that signs models is another one, and the only one that a new home trusts.
    """
    try:
        return _lay_out(home)
    except OSError as e:
        raise NotReady(
            "home.not-writable",
            f"{e.filename or home.root} cannot be written: {e.strerror}",
            hint="choose another folder with --home",
        ) from e


def _lay_out(home: Home) -> list[Path]:
    made: list[Path] = []
    if config.write_default(home):
        made.append(home.config_file)
    for folder in home.folders:
        if not folder.is_dir():
            # The ledger is public by nature: a web server may show it as it is.
            folder.mkdir(mode=0o755 if folder == home.ledger else 0o700)
            made.append(folder)
    made += pack.install(home.policy)
    made += trust.make_organisation(home.keys, home.trust)
    origin = config.load(home).node.origin
    public = []
    for path, kind in (
        (home.ledger_ed25519_key, signing.ED25519),
        (home.ledger_mldsa44_key, signing.MLDSA44),
    ):
        if not path.exists():
            made.append(path)
        public.append(str(signing.load_or_generate(path, origin, kind).vkey))
    text = "".join(f"{key}\n" for key in public)
    before = None
    with contextlib.suppress(FileNotFoundError):
        before = home.ledger_pub.read_text()
    if before != text:
        files.replace(home.ledger_pub, text.encode())
        made.append(home.ledger_pub)
    return made
