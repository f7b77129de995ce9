"""Chat templates are programs that come with a model. Here they are judged before one is ever used.

Guarantees: a template passes only if it parses, touches nothing that Jinja's sandbox keeps shut (also in
branches that no sample reaches), and renders sample conversations within a bound of time and memory, in a
process of its own that ends with the check.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from allod.errors import TooLarge, Unprocessable
from allod.limits import CHAT_TEMPLATE_BYTES_MAX, CHAT_TEMPLATE_SECONDS_MAX
from allod.models.template_probe import ENDLESS, FAILS, UNSAFE, environment

# What leads from a value to the interpreter behind it, whatever the object (as jinja2.sandbox lists it).
_INNER = frozenset(
    [
        "mro",
        "func_code",
        "func_globals",
        "func_closure",
        "func_defaults",
        "gi_frame",
        "gi_code",
        "cr_frame",
        "cr_code",
        "ag_frame",
        "ag_code",
        "tb_frame",
        "tb_next",
        "f_back",
        "f_globals",
        "f_locals",
        "f_builtins",
        "f_code",
        "format_map",
    ]
)
_OUTSIDE = (nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)


def check(name: str, template: str) -> None:
    """Raises Unprocessable `model.template-unsafe`, `model.template-endless`, `model.template-fails`,
    TooLarge `model.template-too-large`. `name` says where the template is."""
    if len(template.encode(errors="replace")) > CHAT_TEMPLATE_BYTES_MAX:
        raise TooLarge("model.template-too-large", f"{name}: the chat template is unreasonably long")
    _read(name, template)
    _render(name, template)


def _read(name: str, template: str) -> None:
    """What can be seen without running it."""
    shut: ImmutableSandboxedEnvironment = environment()
    try:
        tree = shut.parse(template)
    except (TemplateSyntaxError, RecursionError) as e:
        raise Unprocessable("model.template-fails", f"{name}: the chat template does not parse: {e}") from e
    if outside := next(iter(tree.find_all(_OUTSIDE)), None):
        raise _unsafe(name, f"it asks for other files in line {outside.lineno}")
    for attribute, line in _names(tree):
        if attribute is None:
            raise _unsafe(name, f"it computes the name of an attribute in line {line}")
        if attribute.startswith("_") or attribute in _INNER:
            raise _unsafe(name, f"it reaches for {attribute!r} in line {line}")


def _names(tree: nodes.Template) -> Iterator[tuple[str | None, int]]:
    """Every attribute that is asked for by name; None where the name is computed."""
    for get in tree.find_all(nodes.Getattr):
        yield get.attr, get.lineno
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            yield item.arg.value, item.lineno
    for use in tree.find_all(nodes.Filter):
        if use.name == "attr":
            first = use.args[0] if use.args else None
            given = first.value if isinstance(first, nodes.Const) else None
            yield given if isinstance(given, str) else None, use.lineno
        for option in use.kwargs:
            if option.key == "attribute" or use.name in (
                "map",
                "groupby",
                "selectattr",
                "rejectattr",
                "sort",
            ):
                yield from _path(option.value, use.lineno)
        if use.name in ("selectattr", "rejectattr", "groupby") and use.args:
            yield from _path(use.args[0], use.lineno)


def _path(value: nodes.Expr, line: int) -> Iterator[tuple[str | None, int]]:
    """Filters take dotted paths of attributes."""
    if not isinstance(value, nodes.Const):
        yield None, line
    elif isinstance(value.value, str):
        for part in value.value.split("."):
            yield part, line


def _render(name: str, template: str) -> None:
    """What can only be seen by running it."""
    program = [sys.executable, "-I", "-m", "allod.models.template_probe"]
    try:
        done = subprocess.run(
            program, input=json.dumps(template).encode(), capture_output=True,
            timeout=3 * CHAT_TEMPLATE_SECONDS_MAX, check=False, env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise _endless(name) from e
    why = done.stdout.decode(errors="replace").strip()[:200]
    if done.returncode == UNSAFE:
        raise _unsafe(name, why)
    if done.returncode == ENDLESS or done.returncode < 0:
        raise _endless(name)
    if done.returncode == FAILS:
        raise Unprocessable(
            "model.template-fails", f"{name}: the chat template renders no conversation: {why}"
        )
    if done.returncode:
        raise Unprocessable(
            "model.template-fails", f"{name}: the chat template could not be tried: {done.stderr[-200:]!r}"
        )


def _unsafe(name: str, why: str) -> Unprocessable:
    return Unprocessable(
        "model.template-unsafe",
        f"{name}: the chat template wants more than a sandbox gives: {why}",
        hint="do not use this model's template; a chat template needs messages, tools and text",
    )


def _endless(name: str) -> Unprocessable:
    return Unprocessable(
        "model.template-endless",
        f"{name}: the chat template does not end within {CHAT_TEMPLATE_SECONDS_MAX} s and bounded memory",
    )
