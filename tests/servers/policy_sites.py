"""A site to which every rule of the bundled policy agrees, and the facts that make it so."""

from __future__ import annotations

from typing import Any

from allod.sites.facts import Fact, Site
from allod.sites.reading import site

GOOD: dict[str, Any] = {
    "operator": "Example SA",
    "establishment": "FR",
    "controllers": ["FR"],
    "storage_countries": ["FR"],
    "processing_countries": ["FR"],
    "support_countries": ["FR"],
    "cloud_act": False,
    "fisa_702": False,
    "retains_content": False,
    "trains_on_content": False,
    "certificates": ["HDS v2"],
    "transfer_basis": "none-needed",
}


def good_site(name: str = "good", **changes: Fact[Any]) -> Site:
    facts = {k: Fact(value=v, source="contract", date="2026-11-21") for k, v in GOOD.items()} | changes
    return site(name, local=False, facts=facts)
