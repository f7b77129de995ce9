"""`allod kyc`: know your customer, without anything leaving this machine. Each of its verbs has a file."""

from __future__ import annotations

from allod.cli import kyc_screen
from allod.cli.parser import Verbs


def register(verbs: Verbs) -> None:
    under = verbs.group("kyc", "know your customer: screening against official lists, on this machine only")
    kyc_screen.register(under)
