"""`allod version`."""

from __future__ import annotations

import argparse
import platform

import allod
from allod.cli.output import Out
from allod.cli.parser import Verbs


def register(verbs: Verbs) -> None:
    verbs.add("version", "print the version", act)


def act(args: argparse.Namespace, out: Out) -> int:
    value = {"allod": allod.__version__, "python": platform.python_version(), "system": platform.system()}
    out.result(value, [f"allod {allod.__version__}"])
    return 0
