"""The site files of a node: `<home>/sites/*.toml`, read whole or refused whole.

    catalogue = "scaleway"        # optional: start from a bundled entry
    name = "scaleway-paris"       # default: the file's name

    [site]                        # facts; each one here replaces the entry's
    [provider]                    # base_url, api, key, models; likewise, per key

Raises Unprocessable `site.invalid` / `site.key-inline`, NotFound `site.catalogue-unknown`. Nothing is fetched
and no key is read here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from allod.sites import catalogue
from allod.sites.facts import Site
from allod.sites.provider import PROVIDER_KEYS, Provider, read_provider
from allod.sites.reading import invalid, known_keys, read_facts, site

LOCAL = "local"  # the name of this node itself
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class RemoteSite(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as this node knows it: what it is, and how it is reached."""

    site: Site
    provider: Provider
    file: str  # the site file's name, for messages
    catalogue: str = ""  # the bundled entry it started from


def load_sites(folder: Path) -> tuple[RemoteSite, ...]:
    """All sites of a folder in file-name order; an absent folder holds none."""
    found: dict[str, RemoteSite] = {}
    for path in sorted(folder.glob("*.toml")):
        remote = load_site(path)
        if remote.site.name in found:
            raise invalid(
                f"{path.name}: the name {remote.site.name!r} is taken by {found[remote.site.name].file}",
                "give one of them another name",
            )
        found[remote.site.name] = remote
    return tuple(found.values())


def load_site(path: Path) -> RemoteSite:
    """One site file."""
    table = parse(path.name, _read(path))
    known_keys(table, ("catalogue", "name", "site", "provider"), path.name)
    entry_name = table.get("catalogue", "")
    entry = catalogue.entry(entry_name) if entry_name else None
    name = table.get("name", path.stem)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise invalid(f"{path.name}: {name!r} is not a site name", "use a-z, 0-9 and -, at most 63 of them")
    if name == LOCAL:
        raise invalid(f"{path.name}: {LOCAL!r} is this node itself", "give the provider another name")
    facts = dict(entry.facts) if entry else {}
    facts |= read_facts(_table(table, "site", path.name), f"{path.name}: [site]")
    provider = _table(table, "provider", path.name)
    known_keys(provider, PROVIDER_KEYS, f"{path.name}: [provider]")
    if entry:
        known = {"base_url": entry.base_url} if entry.base_url else {}
        provider = known | {"api": entry.api} | dict(provider)
    if not provider:
        raise invalid(f"{path.name}: there is no [provider]", "say at least base_url, api, key and one model")
    return RemoteSite(
        site=site(name, local=False, facts=facts),
        provider=read_provider(provider, f"{path.name}: [provider]"),
        file=path.name,
        catalogue=entry_name,
    )


def parse(name: str, text: str) -> dict[str, Any]:
    """TOML with exact decimals; an error names file, line and column."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as e:
        raise invalid(f"{name} is not TOML: {e}", "correct the line that is named") from e


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise invalid(f"{path.name} cannot be read as UTF-8 text", "check its mode and encoding") from e


def _table(table: Mapping[str, Any], key: str, file: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise invalid(f"{file}: {key} has to be a table", f"write [{key}]")
    return value
