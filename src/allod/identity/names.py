"""What may be a name, a label, a lifetime, a project. Raises Usage with the bound and the form."""

from __future__ import annotations

import re

from allod import limits
from allod.errors import Usage
from allod.identity.rows import ProjectRow

_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{limits.NAME_CHARS_MAX - 1}}}")
_CATEGORY = re.compile(r"[a-z]{1,24}")
_HIGHEST_CLASS = 3  # restricted


def check(what: str, name: str) -> None:
    """Organisations and projects: they stand in URLs, receipts and shell commands."""
    if _NAME.fullmatch(name) is None:
        raise Usage(
            f"{what}.name",
            f"{name[: limits.NAME_CHARS_MAX]!r} cannot be the name of a {what}",
            hint=f"use a-z, 0-9 and -, starting with a letter or digit, at most {limits.NAME_CHARS_MAX}",
        )


def check_label(label: str) -> None:
    """What people call a key: any printable text."""
    if not 0 < len(label.strip()) <= len(label) <= limits.NAME_CHARS_MAX or not label.isprintable():
        raise Usage(
            "key.label",
            "a key needs a label that says who or what uses it",
            hint=f"1 to {limits.NAME_CHARS_MAX} printable characters",
        )


def check_lifetime(days: int) -> None:
    if not 1 <= days <= limits.KEY_LIFETIME_MAX_DAYS:
        raise Usage(
            "key.lifetime",
            f"a key lives 1 to {limits.KEY_LIFETIME_MAX_DAYS} days, not {days}",
            hint=f"the default is {limits.KEY_LIFETIME_DEFAULT_DAYS}",
        )


def check_project(project: ProjectRow) -> None:
    check("project", project.id)
    check("organisation", project.organisation)
    for data_class in (project.default_class, project.floor_class):
        if not 0 <= data_class <= _HIGHEST_CLASS:
            raise Usage("project.class", f"there is no data class {data_class}", hint="use 0 to 3")
    if project.default_class < project.floor_class:
        raise Usage(
            "project.class",
            "the default class is below the floor, so it would never apply",
            hint="raise the default, or lower the floor",
        )
    if any(_CATEGORY.fullmatch(c) is None for c in project.categories):
        raise Usage("project.category", "a category is a word of a-z", hint="for example health")
