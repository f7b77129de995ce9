"""`allod kyc`: know your customer, without anything leaving this machine. Each of its verbs has a file."""

from __future__ import annotations

from allod.cli import kyc_documents, kyc_screen
from allod.cli.parser import Verbs


def register(verbs: Verbs) -> None:
    what = "know your customer: documents, identifiers and official lists, on this machine only"
    under = verbs.group("kyc", what)
    kyc_screen.register(under)
    kyc_documents.register(under)
