"""A policy is accepted whole or not at all, and what is wrong is placed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.errors import NotFound, Unprocessable
from allod.policy.decide import Decider
from allod.policy.pack import bundled, install, load
from allod.policy.text import place, statements

PACK = bundled()

GOOD = '@id("a")\n@reason("A.")\npermit (principal, action, resource);\n'


def refused(text: str, schema: str = PACK.schema) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        Decider(text, schema)
    assert caught.value.code == "policy.invalid"
    assert caught.value.hint
    return caught.value


def test_a_misspelt_attribute_is_placed_and_the_nearest_name_is_given():
    bad = (
        GOOD
        + '\n@id("b")\n@reason("B.")\nforbid (principal, action, resource)\nwhen { resource.cloud_akt };\n'
    )
    error = refused(bad)
    assert error.details["line"] == 8
    assert "cloud_akt" in error.message
    assert "'cloud_act'" in error.hint


def test_a_misspelt_action_is_told_the_nearest():
    error = refused(GOOD.replace("action,", 'action == Action::"chatt",'))
    assert "'chat'" in error.hint


def test_a_syntax_error_is_placed_in_its_file(tmp_path):
    install(tmp_path)
    path = tmp_path / "20-confidential.cedar"
    lines = path.read_text().split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("forbid"))
    lines[at] = "forbid (principal, action resource)"
    path.write_text("\n".join(lines))
    pack = load(tmp_path)
    error = refused(pack.text, pack.schema)
    assert error.details["place"] == f"20-confidential.cedar:{at + 1}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not one rule"),
        ("// nothing but a remark", "not one rule"),
        ("permit (principal, action, resource);", "no @id"),
        ('@id("a") permit (principal, action, resource);', "no @reason"),
        ('@id("") @reason("A.") permit (principal, action, resource);', "no @id"),
        (GOOD + GOOD, "is taken"),
        (GOOD.replace('"a"', '"default-deny"'), "is taken"),
        (GOOD.replace("principal,", "principal == ?principal,"), "template"),
        (GOOD.replace(";", ' when { context.data_class > "2" };'), "Long"),
        (GOOD.replace(";", " when { resource has cloud_akt && resource.cloud_akt };"), "has cloud_akt"),
        (GOOD.rstrip().rstrip(";"), ""),
        ("\x00", ""),
    ],
)
def test_what_is_refused(text, says):
    assert says in refused(text).message


@pytest.mark.parametrize("schema", ["", "entity Caller {", "{}", "entity A { x: Strin };"])
def test_a_broken_or_foreign_schema_is_refused(schema):
    refused(PACK.text, schema)


def test_a_policy_that_was_cut_short_anywhere_permits_nothing():
    for at in range(0, PACK.text.index('@id("5.1-callers")'), 173):
        for end in ("", ";", "\n}"):
            try:
                decider = Decider(PACK.text[:at] + end, PACK.schema)
            except Unprocessable:
                continue
            assert all(rule.effect == "forbid" for rule in decider.rules)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_garbage_is_refused_and_nothing_else_is_raised(garbage):
    refused(garbage)


def test_a_broken_reload_leaves_the_old_policy_deciding(tmp_path):
    install(tmp_path)
    old = Decider(load(tmp_path).text, load(tmp_path).schema)
    digest = old.digest
    (tmp_path / "99-new.cedar").write_text("forbid (principal, action, resource) when {")
    pack = load(tmp_path)
    refused(pack.text, pack.schema)
    assert old.digest == digest
    assert old.rules == Decider(PACK.text, PACK.schema).rules


def test_installing_never_touches_what_the_organisation_wrote(tmp_path):
    assert len(install(tmp_path)) == len(PACK.files) + 1
    (tmp_path / "10-internal.cedar").unlink()
    (tmp_path / "90-callers.cedar").write_text(GOOD)
    assert install(tmp_path) == ()
    assert "10-internal.cedar" not in load(tmp_path).files
    assert Decider(load(tmp_path).text, load(tmp_path).schema).rules[-1].id == "a"


def test_an_installed_pack_is_the_bundled_one(tmp_path):
    install(tmp_path)
    assert load(tmp_path) == PACK


@pytest.mark.parametrize("missing", ["*.cedar", "schema.cedarschema"])
def test_a_folder_without_rules_or_schema_is_an_error(tmp_path, missing):
    install(tmp_path)
    for path in tmp_path.glob(missing):
        path.unlink()
    with pytest.raises(NotFound) as caught:
        load(tmp_path)
    assert caught.value.code == "policy.missing"


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    install(tmp_path)
    (tmp_path / "60-latin.cedar").write_bytes(b"// caf\xe9\n")
    with pytest.raises(Unprocessable, match=r"60-latin\.cedar is not UTF-8"):
        load(tmp_path)


def test_statements_are_not_split_inside_strings_and_comments():
    permit = '@id("x;\\";y")\npermit(principal, action, resource); // c;'
    text = f"// a; b\n{permit}\nforbid(principal, action, resource);"
    found = statements(text)
    assert [s.line for s in found] == [2, 4]
    assert place(text, 4) == "line 4"


def test_the_rule_shown_in_the_document_is_accepted():
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```cedar\n(.*?)```", text, re.DOTALL)
    assert Decider(PACK.text + example, PACK.schema).rules[-1].id == "own-1-declared"
