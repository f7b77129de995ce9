"""This node itself as a site, from what its owner declares in the `[site]` table of `allod.toml`.

That the site is local is a fact of the node; everything else is the owner's word, and what is not said is
unknown. A plain value is allowed here, because its source is known: the owner, on the day `declared` names.

    [site]
    declared = 2026-11-21
    operator = "Klinikum Beispiel gGmbH"
    establishment = "DE"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allod.sites.facts import Fact, Site
from allod.sites.load import LOCAL
from allod.sites.reading import SITE_FACTS, checked_value, day, invalid, known_keys, read_facts, site


def local_site(table: Mapping[str, Any], where: str = "allod.toml: [site]") -> Site:
    """Raises Unprocessable `site.invalid`."""
    known_keys(table, ("declared", *SITE_FACTS), where)
    declared = day(table["declared"], f"{where} declared") if "declared" in table else ""
    facts: dict[str, Fact[Any]] = {}
    for name in SITE_FACTS:
        if name not in table:
            continue
        raw = table[name]
        if isinstance(raw, Mapping):
            facts |= read_facts({name: raw}, where)
        elif not declared:
            raise invalid(
                f"{where} says {name} but not since when", "add declared = 2026-11-21 (today's date)"
            )
        else:
            value = checked_value(name, raw, f"{where} {name}")
            facts[name] = Fact(value=value, source=f"declared by the owner in {where}", date=declared)
    return site(LOCAL, local=True, facts=facts)
