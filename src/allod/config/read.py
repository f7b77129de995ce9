"""From the text of `allod.toml` to `Config`, strictly.

An unknown key or a wrong value is a Usage error that names the line and the nearest key; nothing is ever
guessed or ignored.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Any

import msgspec

from allod.config.home import FILE_NAME, Home
from allod.config.schema import (
    SERVICES,
    Config,
    DatabaseConfig,
    File,
    InstructionsConfig,
    LedgerConfig,
    ModelsConfig,
    NodeConfig,
    SiteConfig,
    WitnessConfig,
)
from allod.errors import AllodError, NotFound, Unprocessable, Usage
from allod.sites.local import local_site


def load(home: Home) -> Config:
    """Reads the home's configuration. NotFound `home.missing`, Usage `config.invalid` with file and line."""
    try:
        text = home.config_file.read_bytes().decode("utf-8")
    except FileNotFoundError as e:
        raise NotFound(
            "home.missing", f"{home.root} is not a node's home: it has no {FILE_NAME}", hint="allod init"
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        raise Usage("config.invalid", f"{home.config_file} cannot be read as UTF-8 text: {e}") from e
    return parse(text)


def parse(text: str) -> Config:
    """The configuration in `text`. Usage `config.invalid`, with `line` in its details where one is known."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise Usage("config.invalid", f"{FILE_NAME} is not TOML: {e}", hint="correct that line") from e
    try:
        file = msgspec.convert(table, File)
    except msgspec.ValidationError as e:
        raise _explain(str(e), table, text) from e
    facts = dict(file.site)
    watts = facts.pop("active_watts", None)
    if watts is not None and (isinstance(watts, bool) or not isinstance(watts, int | float) or watts <= 0):
        raise _invalid("active_watts has to be a number of watts above 0", ("site", "active_watts"), text)
    try:
        site = local_site(facts)
    except Unprocessable as e:
        key = next((k for k in facts if repr(k) in e.message or f" {k}" in e.message), "")
        raise _invalid(e.message.removeprefix(f"{FILE_NAME}: [site] "), ("site", key), text, e.hint) from e
    _check(file, text)
    return Config(
        node=file.node,
        database=file.database,
        site=SiteConfig(site=site, active_watts=None if watts is None else float(watts)),
        ledger=file.ledger,
        models=file.models,
        instructions=file.instructions,
        services=file.service,
    )


def _check(file: File, text: str) -> None:
    """What no type can say."""
    if bool(file.node.tls_cert) != bool(file.node.tls_key):
        key = "tls_cert" if file.node.tls_cert else "tls_key"
        raise _invalid(f"{key} is set, its counterpart is not", ("node", key), text, "set both, or neither")
    if re.search(r"://[^/@:]*:[^/@]+@", file.database.url):
        hint = "put it into ~/.pgpass (mode 0600) and leave it out of the URL"
        raise _invalid("url holds a password", ("database", "url"), text, hint)
    seen: set[str] = set()
    for number, service in enumerate(file.service):
        for name in (service.model, *service.aliases):
            if name in seen:
                raise _invalid(f"two services answer to {name!r}", ("service", number, "model"), text)
            seen.add(name)


# --- saying what is wrong, and where ------------------------------------------------------------------------

_AT = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`")
_MISSING = re.compile(r"missing required field `(.*)`")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _explain(said: str, table: dict[str, Any], text: str) -> AllodError:
    """msgspec's finding in words, with the line and the nearest key."""
    at = _AT.search(said)
    path = _path(at[1]) if at else ()
    what = said[: at.start()] if at else said
    if unknown := _UNKNOWN.search(what):
        hint = _nearest(unknown[1], _known_keys(path, table), "keys")
        return _invalid(f"unknown key {unknown[1]!r}", (*path, unknown[1]), text, hint)
    if missing := _MISSING.search(what):
        return _invalid(f"{missing[1]} has to be given", path, text)
    if path and path[-1] == "engine":
        hint = _nearest(str(_at(table, path)), [s.engine for s in SERVICES], "engines")
        return _invalid(f"there is no engine {_at(table, path)!r}", path, text, hint)
    for name, word in _TYPES.items():
        what = what.replace(f"`{name}`", word)
    key = next((f"{p}: " for p in reversed(path) if isinstance(p, str)), "")
    return _invalid(f"{key}{what[:1].lower()}{what[1:]}", path, text)


def _nearest(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known {what}: {', '.join(known)}"


def _at(table: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        table = table[part]
    return table


def _path(text: str) -> tuple[str | int, ...]:
    """`.service[0].model` -> ("service", 0, "model")."""
    return tuple(int(i) if i else k for k, i in re.findall(r"\.([A-Za-z_]+)|\[(\d+)\]", text))


def _known_keys(path: tuple[str | int, ...], table: dict[str, Any]) -> list[str]:
    match path:
        case ():
            return list(File.__struct_fields__)
        case ("service", int(number)):
            engine = table["service"][number].get("engine")
            fields = [s.__struct_fields__ for s in SERVICES if s.engine == engine]
            return ["engine", *fields[0]]
        case ("ledger", "witness", *_):
            return list(WitnessConfig.__struct_fields__)
        case (str(section), *_):
            tables = {
                "node": NodeConfig,
                "database": DatabaseConfig,
                "ledger": LedgerConfig,
                "models": ModelsConfig,
                "instructions": InstructionsConfig,
            }
            return list(tables[section].__struct_fields__)
    return []


def _invalid(message: str, path: tuple[str | int, ...], text: str, hint: str = "") -> Usage:
    line = _line(path, text)
    place = f"{FILE_NAME}, line {line}" if line else FILE_NAME
    where = _section(path)
    at = f" in {where}" if where else ""
    details = {"line": line} if line else {}
    return Usage(
        "config.invalid", f"{place}{at}: {message}", hint=hint or "see docs/configuration.md", **details
    )


def _section(path: tuple[str | int, ...]) -> str:
    names = ".".join(p for p in path[:2] if isinstance(p, str) and (p in ("witness",) or p == path[0]))
    if not names:
        return ""
    return f"[[{names}]]" if names in ("service", "ledger.witness") else f"[{names}]"


def _line(path: tuple[str | int, ...], text: str) -> int | None:
    """The line of a key, else that of its table. None in forms of TOML that are not told apart here."""
    header, number = _section(path), next((p for p in path if isinstance(p, int)), 0)
    key = path[-1] if path and isinstance(path[-1], str) else ""
    current, seen, found = "", -1, None
    for count, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.split("#")[0].strip()
            seen += current == header
            if header in ("", current) and key and current.strip("[]") == key:
                return count
            if current == header and (seen == number or not header.startswith("[[")):
                found = count
        elif current == header and (seen == number or not header.startswith("[[")):
            name = stripped.partition("=")[0].strip().strip("\"'")
            if key and name == key:
                return count
    return found
