"""Languages: reads the gettext catalogues (`locale/<language>.po`) once at start; English is the source.

The `.po` files are what translators edit and what runs: there is no compiled copy that could disagree.
"""

from __future__ import annotations

import ast
import gettext
from datetime import UTC, datetime
from importlib.resources import files
from typing import Protocol

LANGUAGES = {"en": "English", "fr": "Français", "de": "Deutsch"}

_DECIMAL = {"en": ".", "fr": ",", "de": ","}
_THOUSANDS = {"en": ",", "fr": "\u202f", "de": "."}  # fr: narrow no-break space
_DATE = {"en": "%-d %b %Y", "fr": "%d/%m/%Y", "de": "%d.%m.%Y"}


class Gettext(Protocol):
    """`_("Hello %(name)s", name=…)`: the text in the reader's language, filled in."""

    def __call__(self, message: str, /, **values: object) -> str: ...


def N_(message: str) -> str:  # noqa: N802 - gettext's own name for "translate later"
    """Marks a message for the catalogues without translating it yet."""
    return message


class Catalogue(gettext.NullTranslations):
    """One language's messages. A message without translation is shown in English."""

    def __init__(self, language: str, messages: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.language = language
        self.messages = messages

    def gettext(self, message: str) -> str:
        return self.messages.get(message, (message,))[0] or message

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        forms = self.messages.get(msgid1, ())
        plural = n > 1 if self.language == "fr" else n != 1
        if len(forms) == 2 and all(forms):
            return forms[plural]
        return msgid2 if n != 1 else msgid1

    def __call__(self, message: str, /, **values: object) -> str:
        return self.gettext(message) % values if values else self.gettext(message)

    def number(self, value: float, digits: int = 0) -> str:
        """`12345.6` -> `12,345.6` or as the language writes it."""
        text = f"{value:,.{digits}f}"
        swap = {",": _THOUSANDS[self.language], ".": _DECIMAL[self.language]}
        return "".join(swap.get(c, c) for c in text)

    def duration(self, us: int) -> str:
        """Microseconds in the unit that a person would use; below zero counts as zero."""
        ms = max(us, 0) / 1_000
        if ms < 10:
            return f"{self.number(ms, 1)} ms"
        if ms < 1_000:
            return f"{self.number(ms)} ms"
        if ms < 60_000:
            return f"{self.number(ms / 1_000, 1)} s"
        return f"{self.number(ms / 60_000, 1)} min"

    def size(self, count: int) -> str:
        """Bytes in decimal units."""
        if count < 1_000:
            return f"{count} B"
        if count < 1_000_000:
            return f"{self.number(count / 1_000, 1)} kB"
        return f"{self.number(count / 1_000_000, 1)} MB"

    def day(self, us: int) -> str:
        return datetime.fromtimestamp(us / 1_000_000, UTC).strftime(_DATE[self.language])

    def clock_time(self, us: int) -> str:
        return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%H:%M:%S")

    def moment(self, us: int) -> str:
        return f"{self.day(us)}, {self.clock_time(us)} UTC"


def load() -> dict[str, Catalogue]:
    """All catalogues by language code. Raises ValueError naming file and line where one is malformed."""
    folder = files("allod.console") / "locale"
    found = {"en": Catalogue("en", {})}
    for code in LANGUAGES:
        if code != "en":
            found[code] = Catalogue(code, parse_po((folder / f"{code}.po").read_text("utf-8"), f"{code}.po"))
    return found


def parse_po(text: str, name: str) -> dict[str, tuple[str, ...]]:
    """The part of GNU gettext's PO format that the catalogues use: msgid, msgid_plural, msgstr, comments."""
    messages: dict[str, tuple[str, ...]] = {}
    entry: dict[str, str] = {}
    field = ""

    def close() -> None:
        if entry.get("msgid"):
            forms = [entry[k] for k in ("msgstr", "msgstr[0]", "msgstr[1]") if k in entry]
            messages[entry["msgid"]] = tuple(forms)
        entry.clear()

    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if not line.startswith('"'):
                field, _, line = line.partition(" ")
                if field == "msgid":
                    close()
                if field not in {"msgid", "msgid_plural", "msgstr", "msgstr[0]", "msgstr[1]"}:
                    raise ValueError(f"unknown field {field!r}")
            entry[field] = entry.get(field, "") + str(ast.literal_eval(line.strip()))
        except (ValueError, SyntaxError) as e:
            raise ValueError(f"{name}, line {number}: {e}") from e
    close()
    return messages


def choose(asked: str, remembered: str, accept: str) -> str:
    """What was asked for by name, else remembered, else Accept-Language (RFC 9110 §12.5.4), or English."""
    for code in (asked, remembered):
        if code in LANGUAGES:
            return code
    ranked: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept.split(",")[:20]):
        tag, _, weight = item.strip().partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        ranked.append((-quality, place, tag.partition("-")[0].lower()))
    return next((code for quality, _, code in sorted(ranked) if code in LANGUAGES and quality < 0), "en")
