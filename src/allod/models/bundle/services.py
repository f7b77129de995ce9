"""The services of a configuration, taken out of one `allod.toml` and put into another.

Only `[[service]]` tables travel. What a node is called, where it listens, where it keeps its database and
above all what is declared of its machine holds for that machine: facts that are copied would be untrue.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from allod.errors import Unprocessable

_SERVICE = re.compile(r"[ \t]*(\[\[[ \t]*service[ \t]*\]\]|\[[ \t]*service[ \t]*\.)")
_TABLE = re.compile(r"[ \t]*\[")


def of(text: str) -> str:
    """The `[[service]]` tables of a configuration, as they are written. Raises Unprocessable
    `bundle.services`."""
    taken = "".join(line for line, is_service in _lines(text) if is_service)
    if _read(taken).get("service", []) != _read(text).get("service", []) or set(_read(taken)) - {"service"}:
        raise _unclear("the configuration's [[service]] tables cannot be taken out of it")
    return taken


def put(text: str, services: str) -> str:
    """`text` with its `[[service]]` tables replaced by `services`, everything else byte for byte.

    Raises Unprocessable `bundle.services` where that cannot be done without changing anything else.
    """
    if of(text) == services:
        return text
    rest = "".join(line for line, is_service in _lines(text) if not is_service)
    made = rest.rstrip("\n") + "\n\n" + services
    before, after, new = _read(text), _read(made), _read(services)
    if after != {k: v for k, v in before.items() if k != "service"} | new or set(new) - {"service"}:
        raise _unclear("the services cannot be put into allod.toml without changing anything else in it")
    return made


def _lines(text: str) -> list[tuple[str, bool]]:
    """Every line, and whether it belongs to a service. What is wrong about strings over several lines is
    found by comparing what was read."""
    found, inside = [], False
    for line in text.splitlines(keepends=True):
        if _TABLE.match(line):
            inside = bool(_SERVICE.match(line))
        found.append((line, inside))
    return found


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise _unclear(f"it is not TOML: {e}") from e


def _unclear(why: str) -> Unprocessable:
    return Unprocessable(
        "bundle.services", why, hint="write each service as a table of its own that begins with [[service]]"
    )
