"""`allod project`: who shares keys, a data class and a bill."""

from __future__ import annotations

import argparse
from typing import Any

from allod.api.ports import ProjectView
from allod.cli.admin import Admin
from allod.cli.output import Out, as_mapping, table
from allod.cli.parser import Verbs, home_of
from allod.policy.decision import CATEGORIES, DataClass

_CLASSES = [c.label for c in DataClass]


def register(verbs: Verbs) -> None:
    under = verbs.group("project", "projects: make, list")
    create = under.add("create", "make a project", _create)
    create.add_argument("id", help="its name: a-z, 0-9, '.', '_' and '-'")
    create.add_argument("--organisation", help="whose it is (default: the node's own)")
    create.add_argument(
        "--class", dest="default_class", choices=_CLASSES, default=DataClass.INTERNAL.label,
        help="data class of a request that names none (default: internal)",
    )  # fmt: skip
    create.add_argument("--floor", choices=_CLASSES, help="no request counts as less (default: the same)")
    create.add_argument(
        "--category", action="append", choices=sorted(CATEGORIES), default=[],
        help="what every request of it carries; may be repeated",
    )  # fmt: skip
    under.add("ls", "list the projects", _ls)


def _create(args: argparse.Namespace, out: Out) -> int:
    body = {
        "id": args.id,
        "default_class": args.default_class,
        "floor_class": args.floor or args.default_class,
        "categories": args.category,
        "organisation": args.organisation,
    }
    made = Admin(home_of(args)).post("/admin/v1/projects", ProjectView, body)
    out.result(_shown(made), [f"project {made.id} of {made.organisation}"])
    out.say(f"next: allod key create --project {made.id}")
    return 0


def _ls(args: argparse.Namespace, out: Out) -> int:
    projects = Admin(home_of(args)).get("/admin/v1/projects", list[ProjectView])
    rows = [
        (p.id, p.organisation, p.default_class.label, p.floor_class.label, ", ".join(p.categories))
        for p in projects
    ]
    header = ("PROJECT", "ORGANISATION", "CLASS", "FLOOR", "CATEGORIES")
    out.result({"projects": [_shown(p) for p in projects]}, table(header, rows))
    return 0


def _shown(project: ProjectView) -> dict[str, Any]:
    classes = {"default_class": project.default_class.label, "floor_class": project.floor_class.label}
    return as_mapping(project) | classes
