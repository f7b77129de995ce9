"""Identifiers of accounts, banks, companies and persons: IBAN, BIC, VAT, LEI, and the numbers of EU states.

Guarantees: nothing is looked up outside this machine; "valid" says that form, check digits and inner parts
hold, never that the number was given to anyone. Form and arithmetic come from schwifty and python-stdnum.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Literal, get_args

import msgspec

from allod.errors import TooLarge, Unprocessable, Usage
from allod.limits import IDENTIFIER_CHARACTERS_MAX

Kind = Literal["iban", "bic", "lei", "vat", "person", "company"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_EU = (
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905
)
# By state: python-stdnum's module and what the number is called there. A state that is missing has no scheme
# that python-stdnum knows, or only its VAT number (kind `vat`).
_PERSONS: dict[str, tuple[tuple[str, str], ...]] = {
    "AT": (("at.vnr", "Versicherungsnummer"),),
    "BE": (("be.nn", "rijksregisternummer"), ("be.bis", "BIS number")),
    "BG": (("bg.egn", "EGN"), ("bg.pnf", "number of a foreigner")),
    "CZ": (("cz.rc", "rodné číslo"),),
    "DE": (("de.idnr", "Steuer-Identifikationsnummer"),),
    "DK": (("dk.cpr", "CPR number"),),
    "EE": (("ee.ik", "isikukood"),),
    "ES": (("es.dni", "DNI"), ("es.nie", "NIE")),
    "FI": (("fi.hetu", "henkilötunnus"),),
    "FR": (("fr.nir", "NIR"), ("fr.nif", "numéro fiscal")),
    "GR": (("gr.amka", "AMKA"),),
    "HR": (("hr.oib", "OIB"),),
    "IE": (("ie.pps", "PPS number"),),
    "IT": (("it.codicefiscale", "codice fiscale"),),
    "LT": (("lt.asmens", "asmens kodas"),),
    "LV": (("lv.pvn", "personas kods"),),
    "NL": (("nl.bsn", "burgerservicenummer"),),
    "PL": (("pl.pesel", "PESEL"),),
    "PT": (("pt.nif", "NIF"),),
    "RO": (("ro.cnp", "CNP"),),
    "SE": (("se.personnummer", "personnummer"),),
    "SI": (("si.emso", "EMŠO"),),
    "SK": (("sk.rc", "rodné číslo"),),
}
_COMPANIES: dict[str, tuple[tuple[str, str], ...]] = {
    "AT": (("at.businessid", "Firmenbuchnummer"),),
    "BE": (("be.vat", "ondernemingsnummer"),),
    "BG": (("bg.vat", "EIK"),),
    "CZ": (("cz.dic", "IČO"),),
    "DE": (("de.handelsregisternummer", "Handelsregisternummer"),),
    "DK": (("dk.cvr", "CVR number"),),
    "EE": (("ee.registrikood", "registrikood"),),
    "ES": (("es.cif", "CIF"),),
    "FI": (("fi.ytunnus", "Y-tunnus"),),
    "FR": (("fr.siren", "SIREN"), ("fr.siret", "SIRET")),
    "GR": (("gr.vat", "AFM"),),
    "HR": (("hr.oib", "OIB"),),
    "HU": (("hu.anum", "adószám"),),
    "IT": (("it.iva", "partita IVA"),),
    "LV": (("lv.pvn", "reģistrācijas numurs"),),
    "PL": (("pl.regon", "REGON"), ("pl.nip", "NIP")),
    "PT": (("pt.nif", "NIPC"),),
    "RO": (("ro.cui", "CUI"), ("ro.onrc", "ONRC number")),
    "SE": (("se.orgnr", "organisationsnummer"),),
    "SI": (("si.maticna", "matična številka"),),
}
_NATIONAL = {"person": _PERSONS, "company": _COMPANIES}
# Denmark has given out numbers whose check digit does not hold since 2007.
_NO_ARITHMETIC = frozenset({"de.handelsregisternummer", "ro.onrc", "dk.cpr"})
_FORM_ONLY = "only its form was checked: it has no check digit that always holds"
_BANKS_SHOWN = 3  # a large bank is listed under each of its branches


class Checked(msgspec.Struct, frozen=True):
    """One identifier, held against one kind. `says` is what can be read off it, by name."""

    kind: Kind
    valid: bool
    normalised: str  # as registers write it, without blanks; empty where it is not valid
    reason: str  # why it is not valid; if it is, what that does not prove
    country: str = ""  # ISO 3166-1 alpha-2
    scheme: str = ""
    says: dict[str, str] = {}


def check(kind: Kind, text: str, country: str = "") -> Checked:
    """Holds `text` against `kind`. `country` (two letters) is needed for `person` and `company`.

    Raises Usage `kyc.country`, Unprocessable `kyc.no-scheme`, TooLarge `kyc.identifier-long`.
    """
    if len(text) > IDENTIFIER_CHARACTERS_MAX:
        raise TooLarge(
            "kyc.identifier-long",
            f"{len(text)} characters are no identifier: the bound is {IDENTIFIER_CHARACTERS_MAX}",
            hint="give one identifier at a time",
        )
    country = country.strip().upper().replace("EL", "GR")
    if kind in _NATIONAL:
        return _national(kind, text, country)
    readers: dict[str, Callable[[str, str], Checked]] = {"iban": _iban, "bic": _bic, "lei": _lei, "vat": _vat}
    found = readers[kind](text, country)
    if found.valid and country and found.country and found.country != country:
        reason = f"it is of {found.country}, not of {country}"
        return msgspec.structs.replace(found, valid=False, normalised="", reason=reason)
    return found


def recognise(text: str, country: str = "") -> tuple[Checked, ...]:
    """Every kind and state by whose rules `text` is valid; often several: many schemes are only digits."""
    return tuple(found for found in _attempts(text, country.upper()) if found.valid)


def _attempts(text: str, country: str) -> Iterator[Checked]:
    for kind in KINDS:
        if kind not in _NATIONAL:
            yield check(kind, text, country)
            continue
        for state in [country] if country else _EU:
            if state in _NATIONAL[kind]:
                yield check(kind, text, state)
    if not country and not text[:2].isalpha():  # a VAT number without its prefix
        for state in _EU:
            yield check("vat", text, state)


# --- by kind ------------------------------------------------------------------------------------------------


def _iban(text: str, _country: str) -> Checked:
    from schwifty import IBAN

    try:
        iban = IBAN(text)
    except ValueError as e:
        return Checked("iban", False, "", _sentence(e), scheme="ISO 13616")
    says = {"written": iban.formatted, "bank code": iban.bank_code}
    with contextlib.suppress(ValueError):
        says |= {"bank": iban.bank_name or "", "bic": str(iban.bic or "")}
    return Checked(
        "iban", True, iban.compact, _unproven("account"), iban.country_code, "ISO 13616", _filled(says)
    )


def _bic(text: str, _country: str) -> Checked:
    from schwifty import BIC

    try:
        bic = BIC(text)
    except ValueError as e:
        return Checked("bic", False, "", _sentence(e), scheme="ISO 9362")
    names = sorted(dict.fromkeys(bic.bank_names), key=len)
    more = f" and {len(names) - _BANKS_SHOWN} more" if len(names) > _BANKS_SHOWN else ""
    says = {"bank": "; ".join(names[:_BANKS_SHOWN]) + more, "branch": bic.branch_code}

    return Checked("bic", True, bic.compact, _FORM_ONLY, bic.country_code, "ISO 9362", _filled(says))


def _lei(text: str, _country: str) -> Checked:
    number, reason = _arithmetic("lei", text)
    says = {"issued by": number[:4]} if number else {}
    return Checked("lei", bool(number), number, reason or _unproven("company"), "", "ISO 17442", says)


def _vat(text: str, country: str) -> Checked:
    prefix = {"GR": "EL"}.get(country, country)
    bare = text.strip().upper()
    number, reason = _arithmetic("eu.vat", bare if bare[:2].isalpha() else prefix + bare)
    state = {"EL": "GR"}.get(number[:2], number[:2])
    return Checked("vat", bool(number), number, reason or _unproven("company"), state, "EU VAT", {})


def _national(kind: Kind, text: str, country: str) -> Checked:
    if not country:
        raise Usage(
            "kyc.country", f"the number of a {kind} means nothing without its state", hint="--country PL"
        )
    schemes = _NATIONAL[kind].get(country, ())
    if not schemes:
        known = " ".join(sorted(_NATIONAL[kind]))
        raise Unprocessable(
            "kyc.no-scheme",
            f"no scheme for the number of a {kind} of {country} is known",
            hint=f"known: {known}",
        )
    reasons = []
    for module, scheme in schemes:
        number, reason = _arithmetic(module, text)
        if number:
            reason = _FORM_ONLY if module in _NO_ARITHMETIC else _unproven(kind)
            return Checked(kind, True, number, reason, country, scheme, _says(module, number))
        reasons.append(f"{scheme}: {reason}")
    return Checked(kind, False, "", "; ".join(reasons), country, " or ".join(s for _, s in schemes))


def _arithmetic(module: str, text: str) -> tuple[str, str]:
    """The number as python-stdnum writes it, or why it is none."""
    from stdnum import exceptions

    rules: Any = importlib.import_module(f"stdnum.{module}")
    try:
        return str(rules.validate(text)), ""
    except exceptions.InvalidLength:
        return "", "it has the wrong length"
    except exceptions.InvalidChecksum:
        return "", "its check digits do not hold"
    except exceptions.InvalidComponent:
        return "", "a part of it is impossible: a date, a place or a code"
    except (exceptions.ValidationError, ValueError, IndexError):  # parts that its rules did not expect
        return "", "it does not have that form"


def _says(module: str, number: str) -> dict[str, str]:
    """Birth date and sex, where the number carries them."""
    rules: Any = importlib.import_module(f"stdnum.{module}")
    says: dict[str, str] = {}
    for name, ask in (("birth date", "get_birth_date"), ("sex", "get_gender")):
        with contextlib.suppress(ValueError, AttributeError):
            told = getattr(rules, ask)(number)
            says[name] = told.isoformat() if isinstance(told, date) else str(told or "")
    return _filled(says)


def _unproven(what: str) -> str:
    return f"form and check digits hold; that there is this {what} does not follow"


def _filled(says: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in says.items() if value}


def _sentence(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
