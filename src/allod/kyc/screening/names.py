"""A name made comparable: folded to ASCII, split into parts, each part with what it is and how much it says.

Guarantees: pure and deterministic; `parse` is idempotent on its own folded text; case, accents, punctuation
and the order of parts change nothing but the order of parts. Sources: Unicode NFKD (UAX 15) and anyascii's
tables.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import msgspec
from anyascii import anyascii

from allod.kyc.screening import words

NAME_CHARS_MAX = 512  # beyond it a "name" is a text; what follows is not compared
PARTS_MAX = 24  # the longest listed name has 20 parts; alignment is quadratic in them

_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z][a-z]|[A-Z]{2}\b)")
_APOSTROPHES = re.compile(r"['`’‘ʼʻʹʺ]")
_ABBREVIATED = re.compile(r"\b([a-z])(?:\.\s?-?|/)(?=[a-z](?:[./]|\b))")
_SPLIT = re.compile(r"[^a-z0-9]+")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[0-9])[a-z0-9]{3,}")
_LOOKALIKES = str.maketrans("013459", "oieasg")
_ABJAD = re.compile("[\u0590-\u07bf\ufb1d-\ufdff\ufe70-\ufeff]")
_VOWELS = re.compile(r"[aeiouwyh']")

WEIGHT_NAME = 1.0
WEIGHT_GENERIC = 0.6
WEIGHT_NUMBER = 0.45  # funds and ships of one owner differ by their number alone
WEIGHT_TITLE = 0.15

_SOUNDS = (
    ("tsch", "c"), ("sch", "s"), ("tch", "c"), ("shch", "s"), ("sh", "s"), ("ch", "s"), ("kh", "k"),
    ("gh", "g"),
    ("ph", "f"), ("zh", "j"), ("th", "t"), ("dh", "d"), ("dj", "j"), ("ck", "k"), ("ts", "s"), ("tz", "s"),
    ("hs", "s"), ("ou", "u"), ("oo", "u"), ("ee", "i"), ("ie", "i"), ("ei", "i"), ("ey", "i"), ("ij", "i"),
    ("ii", "i"), ("yy", "i"), ("iy", "i"), ("ae", "e"), ("oe", "o"), ("ue", "u"), ("ks", "x"),
)  # fmt: skip
_SOUND = re.compile("|".join(sorted((a for a, _ in _SOUNDS), key=len, reverse=True)))
_SOUND_OF = dict(_SOUNDS)
_LETTERS = str.maketrans("qgcwvzyjou", "kkkvvsiiuu")
_DOUBLED = re.compile(r"(.)\1+")


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part: `text` in ASCII, `sound` for transliteration variants, `role` name, generic, number or
    title."""

    text: str
    sound: str
    role: str
    weight: float


class Name(msgspec.Struct, frozen=True, gc=False):
    """A comparable name without its legal forms, which stand apart. `abjad` where it was written
    without vowels (Arabic, Hebrew)."""

    parts: tuple[Part, ...]
    forms: frozenset[str]
    abjad: bool


def fold(text: str) -> str:
    """Lower-case ASCII with single spaces: what two spellings of a name share. May be empty."""
    text = unicodedata.normalize("NFKC", text[:NAME_CHARS_MAX])
    text = anyascii(text) if not text.isascii() else text
    return " ".join(_tokens(text))


def _tokens(ascii_text: str) -> list[str]:
    text = _CAMEL.sub(" ", _APOSTROPHES.sub("", ascii_text)).lower()
    if "." in text or "/" in text:
        text = _ABBREVIATED.sub(r"\1", text)
    return [_digits(t) for t in _SPLIT.split(text) if t]


def _digits(token: str) -> str:
    """Letters again, where digits stand for them within a word."""
    if token.isalpha() or token.isdigit() or not _MIXED.fullmatch(token) or token in words.NUMBERS:
        return token
    swapped = token.translate(_LOOKALIKES)
    letters = sum(c.isalpha() for c in token)
    return swapped if swapped.isalpha() and letters * 2 > len(token) else token


@lru_cache(maxsize=65_536)
def sound(token: str) -> str:
    """A key that competing romanisations of one word mostly share (Gaddafi and Qadhafi, Usama and Osama)."""
    text = _SOUND.sub(lambda m: _SOUND_OF[m[0]], token).translate(_LETTERS)
    return _DOUBLED.sub(r"\1", text)


@lru_cache(maxsize=65_536)
def skeleton(token: str) -> str:
    """The consonants that a script without vowels would write."""
    text = _VOWELS.sub("", sound(token)).replace("p", "b")
    return text or token[:1]


@lru_cache(maxsize=65_536)
def _part(token: str) -> Part:
    if token in words.HONORIFICS or token in words.PARTICLES:
        return Part(token, sound(token), "title", WEIGHT_TITLE)
    token = words.ABBREVIATIONS.get(token, token)
    if token.isdigit():
        return Part(token, token, "number", WEIGHT_NUMBER)
    if token in words.GENERIC:
        return Part(token, sound(token), "generic", WEIGHT_GENERIC)
    return Part(token, sound(token), "name", WEIGHT_NAME)


def parse(text: str) -> Name:
    """The comparable form of a name in any script. Without letters or digits: no parts."""
    text = unicodedata.normalize("NFKC", text[:NAME_CHARS_MAX])
    abjad = False
    if not text.isascii():
        abjad = _ABJAD.search(text) is not None
        text = anyascii(text)
    tokens, forms = _without_forms(_tokens(text))
    numbered = _numbers(tokens)
    parts = tuple([_part(t) for t in numbered[:PARTS_MAX]])
    if all(p.role == "title" for p in parts):  # who is listed as `Major` and nothing else is called so
        parts = tuple([Part(p.text, p.sound, "name", WEIGHT_NAME) for p in parts])
    return Name(parts, forms, abjad)


def _without_forms(tokens: list[str]) -> tuple[list[str], frozenset[str]]:
    """Takes legal forms out, unless nothing else would be left."""
    forms: list[str] = []
    kept: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token in _PHRASE_STARTS:
            phrase = next((p for p in _PHRASE_STARTS[token] if tuple(tokens[at : at + len(p)]) == p), None)
            if phrase:
                forms.append(words.FORM_PHRASES[phrase])
                at += len(phrase)
                continue
        if token in words.FORMS:
            forms.append(words.FORMS[token])
        else:
            kept.append(token)
        at += 1
    return (kept, frozenset(forms)) if kept else (tokens, frozenset())


def _phrase_starts() -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(words.FORM_PHRASES, key=len, reverse=True):
        found.setdefault(phrase[0], []).append(phrase)
    return found


_PHRASE_STARTS = _phrase_starts()


def _numbers(tokens: list[str]) -> list[str]:
    """Number words, ordinals and Roman numerals as digits; tens take the unit behind them."""
    if words.NUMBER_WORDS.isdisjoint(tokens):
        return tokens
    out: list[str] = []
    tens = False
    for token in tokens:
        token = words.NUMBERS.get(token, token)
        if tens and len(token) == 1 and token.isdigit():
            out[-1] = str(int(out[-1]) + int(token))
            tens = False
            continue
        tens = token in words.TENS
        out.append(words.TENS[token] if tens else token)
    return out
