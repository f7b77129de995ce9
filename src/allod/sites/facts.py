"""Sites and what is known of them. Each fact has a source and a date; what is unknown counts as the worst."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

FactKind = Literal["measured", "attested", "declared", "contract", "public-record"]


class Fact(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One statement about a site. `value` None means unknown."""

    value: T | None
    source: str = ""  # where it was read: a register, a certificate number, a contract, a URL
    date: str = ""  # ISO 8601 day on which the source was read
    kind: FactKind = "declared"
    expires: str = ""  # ISO 8601 day after which the value is unknown again; empty: does not expire


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A place where replicas run. Country codes are ISO 3166-1 alpha-2, upper case.

    `name` is what policy, receipts and people call it; exactly one site of a node is local.
    """

    name: str
    local: bool
    operator: Fact[str]  # legal entity that runs it
    establishment: Fact[str]  # country of that entity's seat
    controllers: Fact[list[str]]  # countries of the ultimate controllers
    storage_countries: Fact[list[str]]
    processing_countries: Fact[list[str]]
    support_countries: Fact[list[str]]
    cloud_act: Fact[bool]  # within reach of 18 U.S.C. § 2713
    fisa_702: Fact[bool]  # an "electronic communication service provider" under 50 U.S.C. § 1881(b)(4)
    retains_content: Fact[bool]  # keeps prompts or answers after the exchange
    trains_on_content: Fact[bool]
    certificates: Fact[list[str]]  # e.g. "SecNumCloud 3.2", "C5:2020 type 2", "ISO 27001"
    transfer_basis: Fact[str]  # GDPR chapter V: "none-needed", "adequacy:XX", "scc"
    hardware_origin: Fact[list[str]] = Fact(value=None)
    energy_g_co2_per_kwh: Fact[float] = Fact(value=None)
