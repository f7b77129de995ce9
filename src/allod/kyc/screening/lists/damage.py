"""The one way a list file is refused."""

from __future__ import annotations

from allod.errors import Unprocessable

HINT = "fetch the list again from its publisher; the last good import stays in use"


def damaged(name: str, line: int, reason: str) -> Unprocessable:
    """The error for a file that is not the list it should be. Lines count from 1."""
    return Unprocessable(
        "kyc.list-damaged", f"{name}, line {line}: {reason}", hint=HINT, file=name, line=line
    )
