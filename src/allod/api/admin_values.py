"""The bodies that the administrative API reads. All strict; what it answers is in `ports`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from allod import limits
from allod.errors import Usage
from allod.identity.caller import Role
from allod.policy.decision import CATEGORIES, DataClass

Name = Annotated[
    str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARS_MAX, pattern=r"^[a-z0-9][a-z0-9._-]*$")
]
Label = Annotated[str, msgspec.Meta(max_length=limits.NAME_CHARS_MAX)]
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
# The label ("confidential") or its rank (0-3), as the values of `ports` are written.
ClassName = (
    Literal["public", "internal", "confidential", "restricted"] | Annotated[int, msgspec.Meta(ge=0, le=3)]
)
CallPath = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/ocr"]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body: an unknown field is an error with the nearest name."""


class Explain(_Body, frozen=True):
    """One question to the policy. `organisation` and `role` are the caller's own where left out."""

    project: Name
    action: Literal["chat", "complete", "embed", "ocr", "fim"]
    model: ModelName
    data_class: ClassName
    categories: list[str] = []
    organisation: Name | None = None
    role: Role | None = None
    language: Literal["en", "fr", "de"] = "en"  # of the reasons, where the rules are written in it


class NewKeyOf(_Body, frozen=True):
    project: Name
    role: Role
    label: Label = ""
    lifetime_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = limits.KEY_LIFETIME_DEFAULT_DAYS


class NewProject(_Body, frozen=True):
    id: Name
    default_class: ClassName
    floor_class: ClassName
    categories: list[str] = []
    organisation: Name | None = None


class NewOrganisation(_Body, frozen=True):
    name: Name


class CallOf(_Body, frozen=True):
    """A model call on behalf of the caller: it takes the whole path and has its own receipt."""

    path: CallPath
    body: msgspec.Raw
    data_class: str = ""
    data_categories: str = ""


class Created(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    version: int


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    erased: bool


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One error: `code` is stable, `hint` is the next step."""

    code: str
    message: str
    hint: str = ""
    details: dict[str, str | int | bool | list[str]] = {}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    error: Problem


def data_class(value: str | int) -> DataClass:
    return DataClass(value) if isinstance(value, int) else DataClass.parse(value)


def categories(values: list[str]) -> frozenset[str]:
    """Raises Usage `category.unknown`."""
    unknown = sorted(set(values) - CATEGORIES)
    if unknown:
        raise Usage(
            "category.unknown",
            f"there is no data category {unknown[0][:40]!r}",
            hint=f"use of: {', '.join(sorted(CATEGORIES))}",
        )
    return frozenset(values)
