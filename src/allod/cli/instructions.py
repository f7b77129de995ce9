"""`allod instructions`: what models are told before anybody asks, in versions. Works without a node."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from allod.cli.output import Out, fields, table
from allod.cli.parser import Verbs, home_of
from allod.clock import SystemClock
from allod.errors import Usage
from allod.models.instructions import Instructions, Record, kind_of

_WHO = "default: the user of this machine"


def register(verbs: Verbs) -> None:
    under = verbs.group("instructions", "system prompts in versions: add, approve, list, show")
    add = under.add("add", "record a version; what is approved never changes", _add)
    add.add_argument("reference", metavar="NAME@VERSION")
    add.add_argument("file", type=Path, help="a system prompt as text, or a chat template (.jinja)")
    add.add_argument("--author", help=_WHO)
    under.add("ls", "list all versions", _ls)
    show = under.add("show", "print a version, or what a receipt's digest stands for", _show)
    show.add_argument("reference", metavar="NAME@VERSION|DIGEST")
    approve = under.add("approve", "say that a version may be applied", _approve)
    approve.add_argument("reference", metavar="NAME@VERSION")
    approve.add_argument("--by", help=_WHO)


def _add(args: argparse.Namespace, out: Out) -> int:
    try:
        text = args.file.read_bytes()
    except OSError as e:
        raise Usage("instructions.no-file", f"{args.file} cannot be read: {e.strerror}") from e
    added = _of(args).add(
        args.reference, text, kind_of(args.file), author=args.author or getpass.getuser(), now_us=_now()
    )
    out.result(added, [f"{added.reference}  {added.digest}"])
    out.say(f"next: allod instructions approve {added.reference}")
    return 0


def _approve(args: argparse.Namespace, out: Out) -> int:
    record = _of(args).approve(args.reference, by=args.by or getpass.getuser(), now_us=_now())
    out.result(record, [f"{record.reference} is approved by {_approvals(record)}"])
    out.say(
        f'next: in a [[service]] of {home_of(args).config_file}:\n\ninstructions = "{record.reference}"\n'
    )
    return 0


def _ls(args: argparse.Namespace, out: Out) -> int:
    found = _of(args).ls()
    rows = [(r.reference, r.kind, r.author, _approvals(r) or "nobody", r.digest[:19]) for r in found]
    out.result(
        {"instructions": found}, table(("INSTRUCTIONS", "KIND", "AUTHOR", "APPROVED BY", "DIGEST"), rows)
    )
    if not found:
        out.say("there are none: allod instructions add NAME@VERSION FILE")
    return 0


def _show(args: argparse.Namespace, out: Out) -> int:
    if args.reference.startswith("sha256:"):
        applied, prompt, template = _of(args).applied(args.reference)
        lines = fields([("system prompt", applied.system_prompt), ("chat template", applied.chat_template)])
        lines += ["", "system prompt:", prompt or "(none)", "", "chat template:", template or "(not known)"]
        value = {"digest": args.reference, "system_prompt": prompt, "chat_template": template}
        out.result(value, lines)
        return 0
    record, text = _of(args).read(args.reference)
    lines = fields(
        [
            ("instructions", record.reference), ("kind", record.kind), ("digest", record.digest),
            ("author", f"{record.author}, {record.added}"), ("approved by", _approvals(record) or "nobody"),
        ]
    )  # fmt: skip
    out.result({"record": record, "text": text}, [*lines, "", text.rstrip()])
    return 0


def _of(args: argparse.Namespace) -> Instructions:
    return Instructions(home_of(args).instructions)


def _approvals(record: Record) -> str:
    return ", ".join(f"{a.by} ({a.at[:10]})" for a in record.approvals)


def _now() -> int:
    return SystemClock().now_us()
