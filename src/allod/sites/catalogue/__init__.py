"""Well-known providers, each fact with the source it was read from and the day.

A starting point, not advice: a contract can say otherwise, and then the site file says so with its own
source. What could not be sourced has no value and counts as the worst. Raises NotFound
`site.catalogue-unknown`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from allod.errors import NotFound
from allod.sites.facts import Fact
from allod.sites.reading import known_keys, read_facts


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as the bundled catalogue knows it."""

    name: str
    title: str
    note: str  # what a reader has to know before using it
    base_url: str  # empty: it belongs to the customer's own resource
    api: str
    facts: Mapping[str, Fact[Any]]


def names() -> tuple[str, ...]:
    """The bundled entries, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


@cache
def entry(name: str) -> Entry:
    """One bundled entry."""
    if name not in names():
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names())}"
        raise NotFound("site.catalogue-unknown", f"the catalogue has no entry {name!r}", hint=hint)
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text, parse_float=Decimal)
    where = f"catalogue/{name}.toml"
    known_keys(table, ("title", "note", "site", "provider"), where)
    known_keys(table["provider"], ("base_url", "api"), f"{where}: [provider]")
    return Entry(
        name=name,
        title=table["title"],
        note=table.get("note", ""),
        base_url=table["provider"]["base_url"],
        api=table["provider"]["api"],
        facts=read_facts(table["site"], f"{where}: [site]"),
    )
