"""The form of a key, and who may do what with keys."""

from __future__ import annotations

import re

import pytest

from allod.errors import Denied, Unauthenticated, Usage
from allod.identity import keys, names
from allod.identity.caller import Caller, Role
from allod.identity.roles import OPERATOR, Target, may, require
from allod.identity.rows import ProjectRow


def test_keys_have_the_form_that_fronts_parse_and_never_repeat():
    made = [keys.create() for _ in range(300)]
    for key in made:
        assert re.fullmatch(r"allod_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", key.text)
        key_id, secret = keys.parse(key.text)
        assert key_id == key.key_id
        assert keys.matches(secret, key.secret_sha256)
        assert len(key.secret_sha256) == 32
    assert len({k.key_id for k in made}) == len({k.text for k in made}) == 300


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: t.replace("allod_", "sk-"),
        lambda t: t.upper(),
        lambda t: t[:10] + "1" + t[11:],
        lambda t: t[:-1] + "é",
        lambda t: "",
    ],
)
def test_anything_else_is_malformed_and_not_repeated(change):
    text = change(keys.create().text)
    with pytest.raises(Unauthenticated) as caught:
        keys.parse(text)
    assert caught.value.code == "key.malformed"
    assert not text or text not in str(caught.value.as_dict())


def test_a_wrong_secret_never_matches():
    one, other = keys.create(), keys.create()
    assert not keys.matches(keys.parse(one.text)[1], other.secret_sha256)
    assert not keys.matches(keys.parse(one.text)[1], bytes(32))


def caller(role: Role, organisation: str = "acme", key_id: str = "k" * 12) -> Caller:
    return Caller(key_id=key_id, organisation=organisation, project="p", role=role)


def key(role: Role, organisation: str = "acme", **more) -> Target:
    return Target(organisation=organisation, project="p", role=role, key_id="t" * 12, **more)


MAKES = {
    Role.OWNER: set(Role),
    Role.ADMIN: set(Role) - {Role.OWNER},
    Role.AUDITOR: set(),
    Role.DEVELOPER: set(),
    Role.SERVICE: set(),
}


@pytest.mark.parametrize("actor", list(Role))
@pytest.mark.parametrize("made", list(Role))
def test_nobody_makes_or_revokes_a_key_above_their_own(actor, made):
    allowed = made in MAKES[actor]
    assert may(caller(actor), "key.create", key(made)).allowed is allowed
    assert may(caller(actor), "key.revoke", key(made)).allowed is allowed
    assert may(caller(actor), "key.create", key(made, "other")).allowed is False
    assert may(caller(actor), "key.revoke", key(made, "other")).allowed is False


@pytest.mark.parametrize("actor", list(Role))
def test_only_the_operator_makes_organisations(actor):
    assert not may(caller(actor), "organisation.create", Target(organisation="acme")).allowed
    operator = caller(actor, "anything", OPERATOR)
    assert may(operator, "organisation.create", Target(organisation="acme")).allowed


@pytest.mark.parametrize("actor", list(Role))
def test_a_key_may_revoke_itself_unless_it_is_the_last_owner(actor):
    itself = Target(organisation="acme", project="p", role=actor, key_id="k" * 12)
    assert may(caller(actor), "key.revoke", itself).allowed
    last = Target(organisation="acme", project="p", role=Role.OWNER, key_id="k" * 12, last_owner=True)
    assert not may(caller(actor), "key.revoke", last).allowed
    assert may(caller(actor, key_id=OPERATOR), "key.revoke", last).allowed


@pytest.mark.parametrize("actor", list(Role))
def test_who_sees_keys_and_makes_projects(actor):
    org, own = Target(organisation="acme"), Target(organisation="acme", project="p")
    sees_all = actor in (Role.OWNER, Role.ADMIN, Role.AUDITOR)
    assert may(caller(actor), "key.list", org).allowed is sees_all
    assert may(caller(actor), "key.list", own).allowed is (sees_all or actor is Role.DEVELOPER)
    assert may(caller(actor), "project.create", org).allowed is (actor in (Role.OWNER, Role.ADMIN))


def test_a_refusal_is_denied_with_its_reason():
    with pytest.raises(Denied, match="above its own") as caught:
        require(caller(Role.ADMIN), "key.create", key(Role.OWNER))
    assert caught.value.code == "role.denied"


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a/b", "..", "é", "a" * 65, "a\n", "a_b"])
def test_bad_names_are_refused(name):
    with pytest.raises(Usage):
        names.check("project", name)


@pytest.mark.parametrize("name", ["a", "radiology-2", "0", "a" * 64])
def test_good_names_are_taken(name):
    names.check("project", name)


@pytest.mark.parametrize("label", ["", "   ", "a" * 65, "a\x00b", "a\nb"])
def test_bad_labels_are_refused(label):
    with pytest.raises(Usage):
        names.check_label(label)


@pytest.mark.parametrize("days", [0, -1, 3651, 10**9])
def test_a_key_does_not_live_for_ever(days):
    with pytest.raises(Usage):
        names.check_lifetime(days)


@pytest.mark.parametrize(
    "changes",
    [
        {"default_class": 4},
        {"floor_class": -1},
        {"default_class": 1, "floor_class": 2},
        {"categories": frozenset({"Health,"})},
        {"organisation": "No"},
    ],
)
def test_bad_projects_are_refused(changes):
    good = {"id": "p", "organisation": "acme", "default_class": 1, "floor_class": 0}
    names.check_project(ProjectRow(**good))
    with pytest.raises(Usage):
        names.check_project(ProjectRow(**(good | changes)))
