"""Under which licence a model comes, as an SPDX expression, and whether the organisation allows it.

Guarantees: a word that is not on the SPDX list becomes `LicenseRef-<word>`, never a guess; "unknown" where
nobody has said; an organisation's list allows exactly what it names.
Source: SPDX License List 3.x; names as they stand in the front matter of model cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from allod.errors import Denied, Usage

UNKNOWN = "unknown"
_SPDX = (
    "0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause",
    "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0", "CC0-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0",
    "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0",
    "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0",
    "EUPL-1.1", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "ISC",
    "LGPL-2.1-only", "LGPL-3.0-only", "LPPL-1.3c", "MIT", "MIT-0", "MPL-2.0", "MS-PL", "NCSA", "ODbL-1.0",
    "ODC-By-1.0", "OFL-1.1", "OSL-3.0", "PDDL-1.0", "PostgreSQL", "Unlicense", "WTFPL", "Zlib",
)  # fmt: skip
_BY_WORD = {name.lower(): name for name in _SPDX} | {
    # older and shorter ways to write the same
    "apache2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "agpl-3.0": "AGPL-3.0-only", "gpl-2.0": "GPL-2.0-only", "gpl-3.0": "GPL-3.0-only",
    "lgpl-2.1": "LGPL-2.1-only", "lgpl-3.0": "LGPL-3.0-only", "odc-by": "ODC-By-1.0",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9.-]+")
_CARD_BYTES = 64 * 1024  # front matter is the beginning of a card


def spdx(word: str) -> str:
    """The SPDX expression for what a file says; "unknown" for nothing said."""
    word = word.strip().strip("\"'")
    if not word or word.lower() in (UNKNOWN, "none", "null", "noassertion"):
        return UNKNOWN
    parts = re.split(r"\s+(AND|OR|WITH)\s+", word)
    if len(parts) > 1:
        return " ".join(p if p in ("AND", "OR", "WITH") else _one(p) for p in parts)
    return _one(word)


def _one(word: str) -> str:
    known = _BY_WORD.get(word.lower())
    if known or word.startswith("LicenseRef-"):
        return known or word
    return "LicenseRef-" + ("-".join(_WORD.findall(word)).strip("-.") or "other")[:100]


def of_card(path: Path) -> str:
    """What the front matter of a model card says, as SPDX; a licence called "other" by its own name."""
    with path.open("rb") as f:
        text = f.read(_CARD_BYTES).decode(errors="replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return UNKNOWN
    front = text[4:].split("\n---", 1)[0]
    said: dict[str, str] = dict(re.findall(r"^(license|license_name):[ \t]*(.+)$", front, re.MULTILINE))
    listed = re.search(r"^license:[ \t]*\n((?:[ \t]*-[ \t]*\S+\n?)+)", front, re.MULTILINE)
    if listed:
        return " OR ".join(spdx(word) for word in re.findall(r"-[ \t]*(\S+)", listed[1]))
    if said.get("license", "").strip().strip("\"'") == "other" and said.get("license_name"):
        return spdx(said["license_name"])
    return spdx(said.get("license", ""))


def agreed(found: Iterable[str], stated: str) -> str:
    """One licence from what the files say and what a person states. Usage `model.licence-conflict` if they
    contradict each other; a bare "other" in a file is no statement."""
    said = dict.fromkeys(word for word in found if word not in (UNKNOWN, "LicenseRef-other"))
    wanted = spdx(stated)
    if wanted != UNKNOWN:
        said.setdefault(wanted)
    if len(said) > 1:
        raise Usage(
            "model.licence-conflict",
            f"the licence is said to be {' and '.join(said)}",
            hint="find out which one holds; what a model's own files say cannot be overruled",
        )
    return next(iter(said), UNKNOWN)


def check_allowed(name: str, licence: str, allowed: tuple[str, ...]) -> None:
    """Raises Denied `model.licence-not-allowed`. An empty list allows all; of alternatives (OR) one is
    enough, of what applies together (AND) all are needed."""
    if not allowed:
        return
    known = {word.lower() for word in allowed}

    def holds(expression: str) -> bool:
        return all(part.strip("() ").lower() in known for part in re.split(r"\sAND\s", expression))

    if not any(holds(choice) for choice in re.split(r"\sOR\s", licence)):
        raise Denied(
            "model.licence-not-allowed",
            f"{name} is under {'no known licence' if licence == UNKNOWN else licence}, not allowed here",
            hint="allowed_licences under [models] in allod.toml names those that are",
            licence=licence,
        )
