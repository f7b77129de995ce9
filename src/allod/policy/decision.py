"""The values that deciding takes and gives. Pure; the rules are evaluated in `policy.decide`."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from allod.errors import Usage


class DataClass(IntEnum):
    """What a request carries, ordered: a higher class never has fewer protections."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> DataClass:
        """`"confidential"` -> CONFIDENTIAL. Raises Usage `class.unknown`; never guesses."""
        try:
            return cls[text.strip().upper()]
        except KeyError:
            known = ", ".join(c.label for c in cls)
            raise Usage(
                "class.unknown", f"there is no data class {text[:40]!r}", hint=f"use one of: {known}"
            ) from None


CATEGORIES = frozenset({"personal", "health", "financial", "biometric", "criminal", "children", "secret"})


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the policy, without a site: hashable, so that answers can be cached per snapshot."""

    organisation: str
    project: str
    role: str
    action: str  # chat | complete | embed | ocr | fim
    model: str
    data_class: DataClass
    categories: frozenset[str] = frozenset()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of one site. `allowed` is true only for Cedar's Allow with zero errors."""

    site: str
    allowed: bool
    rules: tuple[str, ...]  # the @id of each rule that decided; for a default deny: ("default-deny",)
    reasons: tuple[str, ...] = ()  # the @reason texts of those rules, for people
    errors: tuple[str, ...] = ()  # evaluation errors: their presence alone is a deny


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts over all sites that serve the model, in the order in which they were offered."""

    policy: str  # digest of policy text + schema
    verdicts: tuple[Verdict, ...]
    valid_until_us: int  # a fact (certificate, transfer basis) runs out here: decide again after it

    @property
    def allowed_sites(self) -> tuple[str, ...]:
        return tuple(v.site for v in self.verdicts if v.allowed)

    @property
    def allowed(self) -> bool:
        return any(v.allowed for v in self.verdicts)
