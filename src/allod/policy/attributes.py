"""What the rules see of a site: each fact as a Cedar attribute, with unknown and expired as the worst.

`TABLE` is the whole mapping; `docs/policy.md` prints it. A value that is absent, has run out, is empty or has
the wrong type arrives as the worst value, so that forgetting a fact can only ever close a site.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import msgspec

from allod.sites.facts import Fact, Site

UNKNOWN = "unknown"
NEVER_US = 253_402_300_799_000_000  # 9999-12-31T23:59:59Z: nothing consulted here runs out
LONG_MAX = 2**63 - 1  # Cedar's largest Long

Shape = Literal["text", "set", "flag", "marks", "amount"]


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """One Cedar attribute of a site and the facts it is filled from."""

    name: str
    facts: tuple[str, ...]
    shape: Shape
    worst: str  # for people: what it holds when the fact is unknown


TABLE: tuple[Attribute, ...] = (
    Attribute(name="operator", facts=("operator",), shape="text", worst='"unknown"'),
    Attribute(name="establishment", facts=("establishment",), shape="text", worst='"unknown"'),
    Attribute(name="controllers", facts=("controllers",), shape="set", worst='["unknown"]'),
    Attribute(
        name="governed_by", facts=("establishment", "controllers"), shape="set", worst='"unknown" in it'
    ),
    Attribute(name="storage_countries", facts=("storage_countries",), shape="set", worst='["unknown"]'),
    Attribute(name="processing_countries", facts=("processing_countries",), shape="set", worst='["unknown"]'),
    Attribute(name="support_countries", facts=("support_countries",), shape="set", worst='["unknown"]'),
    Attribute(
        name="content_countries",
        facts=("storage_countries", "processing_countries"),
        shape="set",
        worst='"unknown" in it',
    ),
    Attribute(name="cloud_act", facts=("cloud_act",), shape="flag", worst="true"),
    Attribute(name="fisa_702", facts=("fisa_702",), shape="flag", worst="true"),
    Attribute(name="retains_content", facts=("retains_content",), shape="flag", worst="true"),
    Attribute(name="trains_on_content", facts=("trains_on_content",), shape="flag", worst="true"),
    Attribute(name="certificates", facts=("certificates",), shape="marks", worst="[]"),
    Attribute(name="schemes", facts=("certificates",), shape="marks", worst="[]"),
    Attribute(name="transfer_basis", facts=("transfer_basis",), shape="text", worst='"unknown"'),
    Attribute(name="hardware_origin", facts=("hardware_origin",), shape="set", worst='["unknown"]'),
    Attribute(
        name="energy_g_co2_per_kwh",
        facts=("energy_g_co2_per_kwh",),
        shape="amount",
        worst="the largest number Cedar has",
    ),
)
FACTS: tuple[str, ...] = tuple(dict.fromkeys(f for a in TABLE for f in a.facts))

# A certificate counts towards a scheme only as its name, its version or year and, for C5, the audited period:
# "SecNumCloud (in progress)" or "HDS planned" name no scheme.
_SCHEMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("SecNumCloud", re.compile(r"SecNumCloud( v?\d+(\.\d+)*[a-z]?)?", re.IGNORECASE)),
    ("HDS", re.compile(r"HDS( v?\d+(\.\d+)*)?", re.IGNORECASE)),
    ("C5 type 2", re.compile(r"C5(:20\d\d)? type (2|II)", re.IGNORECASE)),
    ("C5 type 1", re.compile(r"C5(:20\d\d)? type (1|I)", re.IGNORECASE)),
    ("ISO 27001", re.compile(r"ISO(/IEC)? 27001(:20\d\d)?", re.IGNORECASE)),
    ("ISO 27701", re.compile(r"ISO(/IEC)? 27701(:20\d\d)?", re.IGNORECASE)),
    ("ISO 42001", re.compile(r"ISO(/IEC)? 42001(:20\d\d)?", re.IGNORECASE)),
    ("SOC 2 type 2", re.compile(r"SOC 2 type (2|II)", re.IGNORECASE)),
)


def entity(site: Site, now_us: int) -> dict[str, Any]:
    """The Cedar JSON entity of a site at this moment (UTC microseconds)."""
    attrs: dict[str, Any] = {"local": site.local is True}
    for attribute in TABLE:
        known = [known_value(getattr(site, fact), now_us) for fact in attribute.facts]
        attrs[attribute.name] = _fill(attribute, known)
    return {"uid": {"type": "Site", "id": site.name}, "attrs": attrs, "parents": []}


def known_value(fact: Fact[Any], now_us: int) -> Any:
    """The value of a fact, or None where it is unknown or has run out."""
    if fact.value is None or now_us >= expiry_us(fact):
        return None
    return fact.value


def expiry_us(fact: Fact[Any]) -> int:
    """The first microsecond at which the fact no longer holds: midnight UTC after its `expires` day.

    `NEVER_US` without an expiry; 0 (already past) where the day cannot be read.
    """
    if not fact.expires:
        return NEVER_US
    try:
        day = date.fromisoformat(fact.expires)
        after = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        return 0
    return int(after.timestamp()) * 1_000_000


def next_expiry_us(sites: Sequence[Site], now_us: int) -> int:
    """When the first of the facts that still hold runs out: until then a decision over these sites stands."""
    ends = (expiry_us(getattr(s, f)) for s in sites for f in FACTS if getattr(s, f).value is not None)
    return min((end for end in ends if end > now_us), default=NEVER_US)


def schemes(certificates: Sequence[str]) -> list[str]:
    """The certification schemes that these certificates name exactly."""
    return sorted(
        {scheme for c in certificates for scheme, form in _SCHEMES if form.fullmatch(c.strip()) is not None}
    )


def _fill(attribute: Attribute, known: list[Any]) -> Any:
    match attribute.shape:
        case "text":
            return known[0] if isinstance(known[0], str) and known[0] else UNKNOWN
        case "flag":
            return known[0] is not False
        case "set":
            return sorted({name for value in known for name in _names(value)})
        case "marks":
            marks = [c for c in _names(known[0]) if c != UNKNOWN]
            return schemes(marks) if attribute.name == "schemes" else sorted(set(marks))
        case "amount":
            return _amount(known[0])


def _names(value: Any) -> list[str]:
    """A country or a list of names; anything else, also the empty list, says nothing and is unknown."""
    if isinstance(value, str) and value:
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) and v for v in value):
        return list(value)
    return [UNKNOWN]


def _amount(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LONG_MAX:
        return LONG_MAX
    return math.ceil(value)
