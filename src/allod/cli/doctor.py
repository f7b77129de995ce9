"""`allod doctor`: what would keep a node from working well on this machine, and what to do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from allod.cli.output import Out
from allod.cli.parser import Verbs, home_of
from allod.errors import NotReady

if TYPE_CHECKING:
    from allod.cli.checks import Found


def register(verbs: Verbs) -> None:
    verbs.add("doctor", "look for what would keep a node from working well, and say what to do", act)


def act(args: argparse.Namespace, out: Out) -> int:
    from allod.cli import checks  # reads much that no other verb needs
    from allod.node import launcher

    home = home_of(args)
    found = list(checks.machine(home))
    if home.root.exists():
        found += checks.of_home(home, running=launcher.running_pid(home) is not None)
    else:
        hint = "allod init"
        found.append(
            checks.Found(
                name="home", ok=True, detail=f"{home.root} is not there yet", hint=hint, needed=False
            )
        )
    well = all(f.ok or not f.needed for f in found)
    out.result({"ok": well, "checks": found}, [line for f in found for line in _lines(f, out)])
    return 0 if well else NotReady.exit_code


def _lines(found: Found, out: Out) -> list[str]:
    mark = out.mark(found.ok) if found.ok or found.needed else out.paint("note", "yellow") + " "
    lines = [f"{mark}{found.name}: {found.detail}"]
    return [*lines, f"     next: {found.hint}"] if found.hint else lines
