"""`allod policy`: what may go where, and which rule says so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from allod.api.ports import NodeStatus
from allod.cli.admin import Admin
from allod.cli.output import Out, as_mapping, moment, table, wrapped
from allod.cli.parser import Verbs, home_of
from allod.identity.caller import Role
from allod.policy import pack, rules
from allod.policy.decision import CATEGORIES, DataClass
from allod.policy.explain import Explanation, FactLine, SiteExplanation

_ACTIONS = ("chat", "complete", "embed", "ocr", "fim")
_ACTION_OF_KIND = {"chat": "chat", "embed": "embed", "ocr": "ocr"}


def register(verbs: Verbs) -> None:
    under = verbs.group("policy", "the rules: explain a decision, check a change, show them")
    explain = under.add(
        "explain", "for a caller, a model and a data class: which sites may, which not, and why", _explain
    )
    explain.add_argument("--model", required=True, help="the model that is asked for")
    explain.add_argument(
        "--class", dest="data_class", required=True, choices=[c.label for c in DataClass],
        help="what the request carries",
    )  # fmt: skip
    explain.add_argument("--project", default="default", help="of the caller (default: default)")
    explain.add_argument("--organisation", help="of the caller (default: the node's own)")
    explain.add_argument(
        "--role", choices=[r.value for r in Role], default=Role.DEVELOPER.value, help="default: developer"
    )
    explain.add_argument("--action", choices=_ACTIONS, help="default: what the model is for")
    explain.add_argument(
        "--category", action="append", choices=sorted(CATEGORIES), default=[], help="may be repeated"
    )
    explain.add_argument(
        "--language",
        choices=rules.LANGUAGES,
        default="en",
        help="of the reasons, where written (default: en)",
    )
    check = under.add("check", "whether the rules are valid; works without a node", _check)
    check.add_argument("folder", nargs="?", type=Path, help="where they are (default: the home's policy)")
    show = under.add("show", "print the rules; works without a node", _show)
    show.add_argument(
        "--list", action="store_true", dest="as_list", help="only their names and what they say"
    )
    under.add("reload", "take changed rules and sites into force, all or nothing", _reload)


def _explain(args: argparse.Namespace, out: Out) -> int:
    admin = Admin(home_of(args))
    action = args.action or _action_of(admin, args.model)
    body = {
        "organisation": args.organisation,
        "project": args.project,
        "role": args.role,
        "action": action,
        "model": args.model,
        "data_class": args.data_class,
        "categories": args.category,
        "language": args.language,
    }
    told = admin.post("/admin/v1/policy/explain", Explanation, body)
    carries = ", ".join([args.data_class, *args.category])
    lines = [f"{args.role} of {args.project} asks {args.model} to {action} ({carries}):", ""]
    for site in told.sites:
        lines += _site(site, out)
    if not told.sites:
        lines.append("no site serves that model: allod sites ls")
    until = moment(told.valid_until_us)
    lines += ["", f"by policy {told.policy[:19]}{'' if until == 'never' else f', until {until}'}"]
    out.result(as_mapping(told) | {"allowed": told.allowed}, lines)
    return 0


def _site(site: SiteExplanation, out: Out) -> list[str]:
    lines = [f"{site.site}: {out.paint('may', 'green') if site.allowed else out.paint('may not', 'red')}"]
    for rule in site.rules:
        lines += wrapped(f"{rule.id}: {rule.reason}", "  ")
        lines += wrapped(f"law: {rule.law}", "    ") if rule.law else []
    lines += [f"  error: {e}" for e in site.errors]
    if site.facts:
        lines.append("  facts that mattered:")
        width = max(len(fact.name) for fact in site.facts) + 2
        for fact in site.facts:
            first, *more = wrapped(_fact(fact), " " * (4 + width))
            lines += [f"    {fact.name.ljust(width)}{first.lstrip()}", *more]
    return lines


def _fact(fact: FactLine) -> str:
    """`FR, US (contract 7, 2026-11-01)`; what is not known, or not any more, says so."""
    ended = f"expired {fact.expires}" if fact.expired else ""
    origin = ", ".join(word for word in (ended, fact.source, fact.date) if word)
    return f"{fact.value} ({origin})" if origin else fact.value


def _action_of(admin: Admin, model: str) -> str:
    services = admin.get("/admin/v1/status", NodeStatus).services
    kind = next((s.kind for s in services if model in (s.model, *s.aliases)), "chat")
    return _ACTION_OF_KIND[kind]


def _check(args: argparse.Namespace, out: Out) -> int:
    folder = args.folder or home_of(args).policy
    found = pack.load(folder)
    reading = rules.read(found.text, found.schema)
    value: dict[str, Any] = {"folder": str(folder), "files": found.files, "rules": len(reading.rules)}
    out.result(
        value, [f"{len(reading.rules)} rules in {len(found.files)} files are valid against the schema"]
    )
    return 0


def _show(args: argparse.Namespace, out: Out) -> int:
    found = pack.load(home_of(args).policy)
    reading = rules.read(found.text, found.schema)
    rows = [(rule.id, rule.effect, rule.reason) for rule in reading.rules]
    listed = [{"id": i, "effect": e, "reason": r} for i, e, r in rows]
    out.result(
        {"rules": listed}, table(("RULE", "EFFECT", "SAYS"), rows) if args.as_list else [found.text.rstrip()]
    )
    return 0


def _reload(args: argparse.Namespace, out: Out) -> int:
    answer = Admin(home_of(args)).post("/admin/v1/reload", dict[str, int])
    out.result(answer, [f"in force as snapshot {answer['version']}"])
    return 0
