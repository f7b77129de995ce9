"""From a parsed TOML table to facts, strictly: what is not understood is an error that names the nearest key.

Each fact is written as

    establishment = { value = "FR", source = "RCS Paris", date = 2026-11-21, kind = "public-record" }

A known value needs a source and a date; without `value` the fact is unknown, and `source` may say where it
was looked for. Raises Unprocessable `site.invalid`, always naming file and key. Reads no file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final, cast, get_args

from allod.errors import Unprocessable
from allod.sites.facts import Fact, FactKind, Site

_COUNTRY = re.compile(r"[A-Z]{2}")  # ISO 3166-1 alpha-2, with the reserved EU for "somewhere in the Union"
_TRANSFER = re.compile(r"none-needed|scc|adequacy:[A-Z]{2}")

FACT_KEYS: Final = ("value", "source", "date", "kind", "expires")
KINDS: Final[tuple[str, ...]] = get_args(FactKind)
_TEXT: Final = ("operator",)
_COUNTRY_FACTS: Final = ("establishment",)
_COUNTRY_LISTS: Final = ("controllers", "storage_countries", "processing_countries", "support_countries")
_FLAGS: Final = ("cloud_act", "fisa_702", "retains_content", "trains_on_content")
_LISTS: Final = ("certificates", "hardware_origin")
SITE_FACTS: Final = tuple(f for f in Site.__struct_fields__ if f not in ("name", "local"))


def site(name: str, *, local: bool, facts: Mapping[str, Fact[Any]]) -> Site:
    """A site of these facts; every other fact is unknown."""
    unknown: dict[str, Fact[Any]] = {fact: Fact(value=None) for fact in SITE_FACTS}
    return Site(name=name, local=local, **(unknown | dict(facts)))


def read_facts(table: Mapping[str, Any], where: str) -> dict[str, Fact[Any]]:
    """The facts of a `[site]` table. `where` is `file: [site]`, for messages."""
    known_keys(table, SITE_FACTS, where)
    return {name: _fact(name, raw, f"{where} {name}") for name, raw in table.items()}


def checked_value(name: str, value: Any, where: str) -> Any:
    """A value in the shape its fact asks for, or Unprocessable `site.invalid`."""
    if name in _TEXT:
        return _matching(value, re.compile(r"\S.{0,199}"), "a name", where)
    if name in _COUNTRY_FACTS:
        return _matching(value, _COUNTRY, 'a country code such as "FR"', where)
    if name == "transfer_basis":
        return _matching(value, _TRANSFER, '"none-needed", "adequacy:XX" or "scc"', where)
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise invalid(f"{where} has to be true or false", "leave the value out if it is not known")
        return value
    if name in _COUNTRY_LISTS or name in _LISTS:
        if not isinstance(value, list) or (not value and name != "certificates"):
            raise invalid(f"{where} has to be a list with at least one entry", 'write it as ["FR"]')
        form = _COUNTRY if name in _COUNTRY_LISTS else re.compile(r"\S.{0,99}")
        what = 'a country code such as "FR"' if name in _COUNTRY_LISTS else "a name"
        return [_matching(v, form, what, where) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or value < 0:
        raise invalid(f"{where} has to be a number of grams, not below 0", "leave the value out if unknown")
    return float(value)


def known_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuses the first unknown key, naming the nearest known one."""
    allowed = list(known)
    for key in table:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(allowed)}"
            raise invalid(f"{where} has an unknown key {key!r}", hint)


def day(raw: Any, where: str) -> str:
    """An ISO 8601 day, from TOML's own dates or from text."""
    if isinstance(raw, date):
        return raw.isoformat()[:10]
    try:
        return date.fromisoformat(raw).isoformat()
    except (TypeError, ValueError) as e:
        raise invalid(f"{where} has to be a day such as 2026-11-21", "use the form YYYY-MM-DD") from e


def invalid(message: str, hint: str) -> Unprocessable:
    return Unprocessable("site.invalid", message, hint=hint)


def _fact(name: str, raw: Any, where: str) -> Fact[Any]:
    if not isinstance(raw, Mapping):
        form = f'write it as {name} = {{ value = ..., source = "...", date = 2026-11-21 }}'
        raise invalid(f"{where} has to say where it was read and when", form)
    known_keys(raw, FACT_KEYS, where)
    kind = raw.get("kind", "declared")
    if kind not in KINDS:
        raise invalid(f"{where}: there is no kind of fact {kind!r}", f"use one of: {', '.join(KINDS)}")
    source = raw.get("source", "")
    if not isinstance(source, str):
        raise invalid(f"{where}: source has to be text", "name the register, contract or address")
    on = day(raw["date"], f"{where}: date") if "date" in raw else ""
    expires = day(raw["expires"], f"{where}: expires") if "expires" in raw else ""
    value = checked_value(name, raw["value"], where) if "value" in raw else None
    if value is not None and not (source.strip() and on):
        missing = "a source" if not source.strip() else "the date on which the source was read"
        raise invalid(f"{where} has a value without {missing}", "a fact nobody can look up is not a fact")
    return Fact(value=value, source=source, date=on, kind=cast("FactKind", kind), expires=expires)


def _matching(value: Any, form: re.Pattern[str], what: str, where: str) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise invalid(f"{where} has to be {what}", "leave the value out if it is not known")
    return value
