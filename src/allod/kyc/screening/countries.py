"""Country names as lists write them, as ISO 3166 alpha-2 codes.

Guarantees: pure; a name that is not known stays as it was written, so that nothing a list says is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources

from allod.kyc.screening import names


@cache
def _known() -> dict[str, str]:
    text = resources.files("allod.kyc.screening").joinpath("countries.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {names.fold(name): code for code, *known in rows for name in (code, *known)}


def code(text: str) -> str:
    """The code of a country by its name or code; `text` itself, trimmed, where it is not known."""
    text = text.strip()
    return _known().get(names.fold(text), text) if text else ""


def codes(texts: Iterable[str]) -> tuple[str, ...]:
    """The codes of several, each once, in the order of their first mention."""
    return tuple(dict.fromkeys(found for text in texts if (found := code(text))))


def of_place(text: str) -> str:
    """The country at the end of `Giza, Egypt` or `Korea, North`: the longest end that is known, else the
    last."""
    parts = [part.strip() for part in text.split(",")]
    for at in range(len(parts)):
        if (found := _known().get(names.fold(", ".join(parts[at:])))) is not None:
            return found
    return parts[-1]
