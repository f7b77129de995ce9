"""`allod sites`: where requests can go, what is known of each place, and the bundled catalogue."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from allod.api.ports import SiteView
from allod.cli.admin import Admin
from allod.cli.output import Out, table, wrapped
from allod.cli.parser import Verbs, home_of
from allod.errors import NotFound
from allod.policy.decision import DataClass
from allod.sites import catalogue
from allod.sites.facts import Fact
from allod.sites.reading import SITE_FACTS

_CLASSES = [c.label for c in DataClass]


def register(verbs: Verbs) -> None:
    under = verbs.group("sites", "the places that requests can go to")
    under.add("ls", "list the sites and what may go there", _ls)
    show = under.add("show", "what is known of a site, each fact with source and date", _show)
    show.add_argument("name", help="the site, as `allod sites ls` shows it")
    book = under.add("catalogue", "the bundled providers; works without a node", _catalogue)
    book.add_argument("name", nargs="?", help="show one entry with its facts")


def _ls(args: argparse.Namespace, out: Out) -> int:
    sites = Admin(home_of(args)).get("/admin/v1/sites", list[SiteView])
    rows = [
        (
            v.site.name + (" (this machine)" if v.site.local else ""),
            text(v.site.operator.value),
            text(v.site.controllers.value),
            v.health,
            *("yes" if v.may.get(c) else "no" for c in _CLASSES),
            ", ".join(v.services),
        )
        for v in sites
    ]
    header = ("SITE", "OPERATOR", "CONTROLLED FROM", "HEALTH", *(c.upper() for c in _CLASSES), "SERVES")
    out.result({"sites": sites}, table(header, rows))
    return 0


def _show(args: argparse.Namespace, out: Out) -> int:
    sites = Admin(home_of(args)).get("/admin/v1/sites", list[SiteView])
    view = next((v for v in sites if v.site.name == args.name), None)
    if view is None:
        raise NotFound("site.unknown", f"there is no site {args.name!r}", hint="allod sites ls")
    lines = [*_facts({n: getattr(view.site, n) for n in SITE_FACTS}), ""]
    for label in _CLASSES:
        lines.append(f"{label}: {'may go there' if view.may.get(label) else 'may not go there'}")
        for reason in view.why_not.get(label, ()):
            lines += wrapped(reason, "  ")
    out.result(view, lines)
    return 0


def _catalogue(args: argparse.Namespace, out: Out) -> int:
    if args.name:
        entry = catalogue.entry(args.name)
        facts = {name: entry.facts.get(name, Fact(value=None)) for name in SITE_FACTS}
        lines = [entry.title, *wrapped(entry.note, "  "), "", *_facts(facts)]
        lines += ["", f"to use it, write {'<home>/sites/'}{entry.name}.toml:", ""]
        lines += [
            f'  catalogue = "{entry.name}"',
            "  [provider]",
            '  key = "env:THE_VARIABLE"',
            "  [[provider.models]]",
        ]
        lines += ['  name = "the-model"', '  kind = "chat"']
        out.result(entry, lines)
        return 0
    entries = [catalogue.entry(name) for name in catalogue.names()]
    rows = [
        (e.name, e.title, *(_fact_text(e.facts, n) for n in ("controllers", "cloud_act"))) for e in entries
    ]
    listed = [{"name": e.name, "title": e.title} for e in entries]
    out.result({"entries": listed}, table(("ENTRY", "PROVIDER", "CONTROLLED FROM", "CLOUD ACT"), rows))
    return 0


def _facts(facts: Mapping[str, Fact[Any]]) -> list[str]:
    rows = [(name, text(fact.value), fact.kind if fact.value is not None else "", fact.date, fact.source)
            for name, fact in facts.items()]  # fmt: skip
    return table(("FACT", "VALUE", "KIND", "READ ON", "SOURCE"), rows)


def _fact_text(facts: Mapping[str, Fact[Any]], name: str) -> str:
    fact = facts.get(name)
    return text(fact.value if fact else None)


def text(value: Any) -> str:
    """A fact's value for people."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return str(value)
