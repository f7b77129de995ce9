"""Reading policy text: every rule named, every mistake placed, or nothing at all.

`read` gives back parsed Cedar only when the text parses, validates against the schema, and every rule carries
`@id` and `@reason`; otherwise it raises Unprocessable `policy.invalid` that says in which file and line, what
is probably meant, and what to do.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, NamedTuple

import cedarpy
import msgspec

from allod import limits
from allod.errors import Unprocessable
from allod.policy.text import Statement, place, statements

_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|//[^\n]*+')  # strings and comments
_BRACKET = re.compile(r"[()\[\]{}]")

LANGUAGES = ("en", "fr", "de")


class Rule(NamedTuple):
    """A rule as people know it."""

    id: str
    effect: str  # "permit" | "forbid"
    reason: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was accepted whole."""

    policies: Any  # cedarpy.PolicySet
    schema: Any  # cedarpy.Schema
    rules: tuple[Rule, ...]  # in the order of the text
    by_cedar_id: dict[str, Rule]  # "policy0" -> its rule
    reasons: dict[str, dict[str, str]]  # rule id -> language -> sentence
    reads: dict[str, tuple[str, ...]]  # rule id -> the site attributes it looks at
    laws: dict[str, str]  # rule id -> @law, where given


def read(text: str, schema: str) -> Reading:
    """Raises Unprocessable `policy.invalid` with `place` and `line` in its details."""
    try:
        parsed_schema = cedarpy.Schema.from_str(schema)
    except ValueError as e:
        raise _invalid(
            f"the schema cannot be read: {e}", "compare it with the bundled schema.cedarschema"
        ) from e
    parts = statements(text)
    if not parts:
        raise _invalid(
            "there is not one rule in the policy, so nothing would ever be permitted",
            "restore the bundled rules, or write at least one permit",
        )
    _bound(text, parts)
    policies = _parse(text, parts)
    known = sorted(set(re.findall(r"[A-Za-z_]\w*", re.sub(r"//[^\n]*", "", schema))))
    _validate(text, parts, parsed_schema, known)
    try:
        return _name(text, parts, policies, parsed_schema, known)
    except RecursionError as e:
        raise _invalid("a rule chains too many conditions", "write several rules") from e


def _bound(text: str, parts: tuple[Statement, ...]) -> None:
    """Cedar reads by recursion: what nests too deep would end this process, not this reading."""
    for part in parts:
        plain = _NO_BRACKETS.sub("", part.text)
        depth = deepest = 0
        for mark in _BRACKET.findall(plain):
            depth += 1 if mark in "([{" else -1
            deepest = max(deepest, depth)
        if len(part.text) > limits.POLICY_RULE_CHARS_MAX or deepest > limits.POLICY_NESTING_MAX:
            raise _invalid(
                f"a rule has at most {limits.POLICY_RULE_CHARS_MAX} characters,"
                f" with brackets at most {limits.POLICY_NESTING_MAX} deep",
                "write several rules",
                text=text,
                line=part.line,
            )


def _parse(text: str, parts: tuple[Statement, ...]) -> Any:
    try:
        return cedarpy.PolicySet.from_str(text)
    except ValueError as e:
        raise _misplaced(text, parts, e) from e


def _misplaced(text: str, parts: tuple[Statement, ...], whole: ValueError) -> Unprocessable:
    """The error with its place. Cedar's message has no line, so the rules are tried one at a time."""
    hint = "correct the rule; nothing of the old policy has changed"
    for part in parts:
        try:
            cedarpy.PolicySet.from_str(part.text)
        except ValueError as e:
            line = _line_of(part, re.findall(r"`([^`]+)`", str(e)))
            why = f"{e} in the rule that starts at {place(text, part.line)}"
            return _invalid(why, hint, text=text, line=line)
    return _invalid(str(whole), hint)


def _validate(text: str, parts: tuple[Statement, ...], parsed_schema: Any, known: list[str]) -> None:
    result = cedarpy.validate_policies(text, parsed_schema)
    if result.validation_passed:
        return
    problems = []
    for error in result.errors:
        index = int(error.policy_id.removeprefix("policy")) if error.policy_id else 0
        part = parts[min(index, len(parts) - 1)]
        message = re.sub(r"^for policy `[^`]*`, ", "", error.error)
        names = [n.split('"')[1] if '"' in n else n for n in re.findall(r"`([^`]+)`", message)]
        problems.append((_line_of(part, names), message, names))
    line, message, names = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise _invalid(
        message + more,
        _nearest(names, known),
        text=text,
        line=line,
        problems=[f"{place(text, at)}: {what}" for at, what, _ in problems],
    )


def _name(
    text: str, parts: tuple[Statement, ...], policies: Any, parsed_schema: Any, known: list[str]
) -> Reading:
    described = json.loads(cedarpy.policies_to_json_str(text))
    if described["templates"]:
        raise _invalid(
            "a template (?principal or ?resource) decides nothing by itself",
            "write the rule out, without placeholders",
            text=text,
            line=next(p.line for p in parts if "?principal" in p.text or "?resource" in p.text),
        )
    rules: dict[str, Rule] = {}
    reasons: dict[str, dict[str, str]] = {}
    reads: dict[str, tuple[str, ...]] = {}
    laws: dict[str, str] = {}
    for index, part in enumerate(parts):
        cedar_id = f"policy{index}"
        body = described["staticPolicies"][cedar_id]
        notes = body.get("annotations", {})
        rule = Rule(notes.get("id") or "", body["effect"], notes.get("reason") or "")
        if not rule.id or not rule.reason:
            missing = "@id" if not rule.id else "@reason"
            raise _invalid(
                f"a rule has no {missing}: a receipt could not name what decided",
                f'write {missing}("...") above it',
                text=text,
                line=part.line,
            )
        if rule.id in reasons or rule.id == "default-deny":
            raise _invalid(
                f"the rule name {rule.id!r} is taken", "give each @id once", text=text, line=part.line
            )
        for name in sorted(_attributes_asked_for(body["conditions"]) - set(known)):
            # to Cedar a misspelt `has` is merely never true: that would be a forbid that never fires
            raise _invalid(
                f"no attribute is called {name!r}, so `has {name}` would never be true",
                _nearest([name], known),
                text=text,
                line=_line_of(part, [name]),
            )
        rules[cedar_id] = rule
        reasons[rule.id] = {
            lang: notes.get("reason" if lang == "en" else f"reason_{lang}") or rule.reason
            for lang in LANGUAGES
        }
        reads[rule.id] = tuple(sorted(_attributes_read(body["conditions"])))
        if notes.get("law"):
            laws[rule.id] = notes["law"]
    return Reading(
        policies=policies,
        schema=parsed_schema,
        rules=tuple(rules.values()),
        by_cedar_id=rules,
        reasons=reasons,
        reads=reads,
        laws=laws,
    )


def _attributes_read(node: Any) -> set[str]:
    """Every `resource.<name>` below a node of Cedar's JSON form."""
    if isinstance(node, list):
        return {name for child in node for name in _attributes_read(child)}
    if not isinstance(node, dict):
        return set()
    access = node.get(".")
    if isinstance(access, dict) and access.get("left") == {"Var": "resource"}:
        return {str(access["attr"])}
    return {name for child in node.values() for name in _attributes_read(child)}


def _attributes_asked_for(node: Any) -> set[str]:
    """Every name after `has` below a node of Cedar's JSON form."""
    if isinstance(node, list):
        return {name for child in node for name in _attributes_asked_for(child)}
    if not isinstance(node, dict):
        return set()
    below = {name for child in node.values() for name in _attributes_asked_for(child)}
    asked = node.get("has")
    return below | ({str(asked["attr"])} if isinstance(asked, dict) and "attr" in asked else set())


def _nearest(names: list[str], known: list[str]) -> str:
    near = difflib.get_close_matches(names[0], [k for k in known if k != names[0]], n=1) if names else []
    return (
        f"did you mean {near[0]!r}? The names are in schema.cedarschema" if near else "see schema.cedarschema"
    )


def _line_of(part: Statement, names: list[str]) -> int:
    """The line of the first of these words inside the rule, or the rule's first line."""
    for name in names:
        found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", part.text)
        if found:
            return part.line + part.text.count("\n", 0, found.start())
    return part.line


def _invalid(why: str, hint: str, *, text: str = "", line: int = 0, **details: Any) -> Unprocessable:
    if not line:
        return Unprocessable("policy.invalid", f"the policy was not accepted: {why}", hint=hint, **details)
    where = place(text, line)
    return Unprocessable(
        "policy.invalid",
        f"the policy was not accepted: {where}: {why}",
        hint=hint,
        place=where,
        line=line,
        **details,
    )
