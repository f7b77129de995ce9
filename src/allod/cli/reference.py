"""The reference pages `docs/cli.md` and `docs/configuration.md`, generated from grammar and schema.

    python -m allod.cli.reference docs/

writes them; a test fails while they differ from what the code says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from allod.config import schema
from allod.sites.reading import SITE_FACTS


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One option or positional argument."""

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()
    value: str = ""  # what stands for its value; empty where it takes none
    optional: bool = False


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command: `allod`, `allod key`, `allod key create`."""

    path: tuple[str, ...]
    help: str
    below: tuple[str, ...]  # the verbs it has, where it is a group
    options: tuple[Argument, ...]
    arguments: tuple[Argument, ...]

    @property
    def usage(self) -> str:
        if self.below:
            return f"{' '.join(self.path)} VERB"
        words = [f"[{a.value}]" if a.optional else a.value for a in self.arguments]
        needed = [f"{o.names[-1]} {o.value}" for o in self.options if not o.optional]
        return " ".join([*self.path, *needed, *words, "[options]"])


def commands() -> Iterator[Command]:
    """Every command in the order of the grammar, groups before what they hold."""
    from allod.cli.main import build_parser

    yield from _walk(build_parser(), ("allod",), "")


def _walk(parser: argparse.ArgumentParser, path: tuple[str, ...], said: str) -> Iterator[Command]:
    under: list[tuple[str, argparse.ArgumentParser, str]] = []
    options, arguments = [], []
    for action in parser._actions:  # argparse offers no other way to read a grammar
        if isinstance(action, argparse._SubParsersAction):
            helps = {a.dest: a.help or "" for a in action._choices_actions}
            under = [(name, sub, helps[name]) for name, sub in action.choices.items()]
        elif action.option_strings:
            options.append(_argument(action))
        else:
            arguments.append(_argument(action))
    yield Command(
        path=path, help=said or parser.description or "", below=tuple(name for name, _, _ in under),
        options=tuple(options), arguments=tuple(arguments),
    )  # fmt: skip
    for name, sub, what in under:
        yield from _walk(sub, (*path, name), what)


def _argument(action: argparse.Action) -> Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    flag = action.nargs == 0
    return Argument(
        names=tuple(action.option_strings),
        help=action.help or "",
        choices=tuple(str(c) for c in action.choices or ()),
        value="" if flag else metavar,
        optional=not action.required if action.option_strings else action.nargs == "?",
    )


# --- the pages ----------------------------------------------------------------------------------------------

_CLI_HEAD = """\
# The `allod` command

Generated from the command's grammar; do not edit.

Data goes to stdout, talk to stderr. Every verb takes `--home DIR` (default: `$ALLOD_HOME`, else `~/.allod`)
and `--json`, which prints exactly one JSON object on stdout, on success and on failure
(`{"error": {"code": …, "message": …, "hint": …}}`). Colour only on a terminal, never with `NO_COLOR`.

| exit code | means |
|---|---|
| 0 | done |
| 1 | a defect of allod itself |
| 2 | what was asked is malformed, or the named thing does not exist |
| 3 | not ready: true later |
| 4 | denied by policy, role or data class |
| 5 | a person has to approve first |
| 6 | a signature, digest or proof is wrong |
| 130 | interrupted |
"""
_COMMON = ("--help", "--home", "--json")


def cli_page() -> str:
    """`docs/cli.md`."""
    parts = [_CLI_HEAD]
    for command in commands():
        if command.path == ("allod",):
            continue
        parts.append(f"{'#' * min(len(command.path), 3)} `{' '.join(command.path)}`\n")
        parts.append(f"{command.help[:1].upper()}{command.help[1:]}.\n")
        if command.below:
            continue
        parts.append(f"    {command.usage}\n")
        rows = [(a.value, a) for a in command.arguments]
        rows += [
            (", ".join(o.names) + (f" {o.value}" if o.value else ""), o)
            for o in command.options
            if o.names[-1] not in _COMMON
        ]
        if rows:
            parts.append(
                "\n".join(["| argument | meaning |", "|---|---|", *(_row(n, a) for n, a in rows)]) + "\n"
            )
    return "\n".join(parts)


def _row(name: str, argument: Argument) -> str:
    chosen = f"{' · '.join(f'`{c}`' for c in argument.choices)}" if argument.choices else ""
    return f"| `{name}` | {'; '.join(t for t in (argument.help, chosen) if t)} |"


_CONFIG_HEAD = """\
# Configuration

Generated from the schema; do not edit.

A node has one configuration file, `allod.toml` in its home. It is strict: an unknown key or a value of the
wrong type is an error that names the line and the nearest key, and the node does not start. Secrets are never
written in it. Rules, sites and instructions are files of their own beside it. Of the environment a node reads
`ALLOD_HOME`, and the variables that a site file names for a provider's key (`env:NAME`).
"""


def configuration_page() -> str:
    """`docs/configuration.md`."""
    parts = [_CONFIG_HEAD]
    parts.append(_section("[node]", schema.NodeConfig))
    parts.append(_section("[database]", schema.DatabaseConfig))
    parts.append(_SITE)
    parts.append(_section("[ledger]", schema.LedgerConfig))
    parts.append(_section("[[ledger.witness]]", schema.WitnessConfig))
    parts.append(_section("[models]", schema.ModelsConfig))
    parts.append(_section("[instructions]", schema.InstructionsConfig))
    parts += [_section("[[service]]", service, engine=str(service.engine)) for service in schema.SERVICES]
    return "\n".join(parts)


_SITE = f"""\
## `[site]`

What you declare of this machine. What is not said is unknown, and counts as the worst. A fact is a plain
value with one `declared = 2026-01-31` for all of them, or a table of its own:
`establishment = {{ value = "DE", source = "HRB 12345", date = 2026-01-31, kind = "public-record" }}`.

Facts: {", ".join(f"`{name}`" for name in SITE_FACTS)}.

| key | type | default | meaning |
|---|---|---|---|
| `declared` | day | | The day on which the plain values were declared. |
| `active_watts` | number | unset | What the machine draws while it answers; energy is estimated from it. |
"""


def _section(title: str, table: type[msgspec.Struct], *, engine: str = "") -> str:
    suffix = f' with `engine = "{engine}"`' if engine else ""
    lines = [f"## `{title}`{suffix}", "", (table.__doc__ or "").strip(), "", _HEADER, "|---|---|---|---|"]
    for field in msgspec.structs.fields(table):
        if title == "[ledger]" and field.name == "witness":
            continue
        kind, meaning = _typed(field.type)
        lines.append(f"| `{field.name}` | {kind} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


_HEADER = "| key | type | default | meaning |"


def _typed(annotation: Any) -> tuple[str, str]:
    """A field's type and description, for people."""
    info = msgspec.inspect.type_info(annotation)
    meaning = ""
    while isinstance(info, msgspec.inspect.Metadata):
        meaning = meaning or (info.extra_json_schema or {}).get("description", "")
        info = info.type
    return _type_words(info), meaning


def _type_words(info: Any) -> str:
    inspect = msgspec.inspect
    match info:
        case inspect.UnionType():
            return " or ".join(
                _type_words(_bare(t)) for t in info.types if not isinstance(t, inspect.NoneType)
            )
        case inspect.IntType() | inspect.FloatType():
            name = "whole number" if isinstance(info, inspect.IntType) else "number"
            low = f"≥ {info.ge}" if info.ge is not None else f"> {info.gt}" if info.gt is not None else ""
            high = f"≤ {info.le}" if info.le is not None else ""
            limits = ", ".join(b for b in (low, high) if b)
            return f"{name} ({limits})" if limits else name
        case inspect.LiteralType():
            return " or ".join(f'`"{v}"`' for v in info.values)
        case inspect.VarTupleType():
            return f"list of {_type_words(_bare(info.item_type))}"
        case inspect.BoolType():
            return "true or false"
    return "text"


def _bare(info: Any) -> Any:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return info


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is None:
        return "unset"
    if value is msgspec.NODEFAULT or value == ():
        return "`[]`"
    return f"`{str(value).lower() if isinstance(value, bool) else msgspec.json.encode(value).decode()}`"


PAGES = {"cli.md": cli_page, "configuration.md": configuration_page}


def main(folder: str) -> None:
    for name, page in PAGES.items():
        Path(folder, name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
