"""The identity store on SQLite and on a real PostgreSQL, including the bad days."""

from __future__ import annotations

import stat
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from identity_postgres import BIN, Postgres

from allod import limits
from allod.clock import ManualClock
from allod.errors import Denied, NotFound, NotReady, TooLarge, Unauthenticated, Usage
from allod.identity.caller import Caller, Role
from allod.identity.roles import OPERATOR
from allod.identity.rows import ProjectRow
from allod.identity.store import IdentityStore
from allod.identity.tables import metadata

OPERATOR_CALLER = Caller(key_id=OPERATOR, organisation="default", project="default", role=Role.OWNER)


@pytest.fixture(scope="module")
def postgres():
    if not (BIN / "initdb").exists():
        pytest.skip("needs Debian's postgresql-15")
    server = Postgres()
    server.start()
    yield server
    server.remove()


class Kit:
    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = ManualClock()
        self.store = IdentityStore(url, self.clock)
        self.store.migrate()

    def owner(self) -> Caller:
        new = self.store.bootstrap()
        assert new is not None
        return self.store.authenticate(new.secret)

    def key(self, by: Caller, role: Role = Role.SERVICE, project: str = "default", days: int = 90):
        return self.store.create_key(by=by, project=project, role=role, label="app", lifetime_days=days)


@pytest.fixture(params=["sqlite", "postgresql"])
def kit(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/identity.db"
    else:
        url = request.getfixturevalue("postgres").url
    made = Kit(url)
    yield made
    if request.param == "postgresql":
        with made.store._database.writing() as connection:
            metadata.drop_all(connection)
            connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
    made.store.close()


def test_the_first_key_is_made_once_in_a_life(kit):
    first = kit.store.bootstrap()
    assert first is not None
    assert first.key.role is Role.OWNER
    assert kit.store.bootstrap() is None
    kit.store.revoke_key(first.key.key_id, by=OPERATOR_CALLER)
    assert kit.store.bootstrap() is None
    assert IdentityStore(kit.url, kit.clock).bootstrap() is None


def test_two_processes_starting_at_once_make_one_first_key(kit):
    made, errors = [], []

    def start():
        try:
            made.append(IdentityStore(kit.url, kit.clock).bootstrap())
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert sum(m is not None for m in made) == 1


def test_a_key_lives_from_creation_to_expiry_and_not_a_moment_longer(kit):
    owner = kit.owner()
    new = kit.key(owner, days=2)
    assert kit.store.authenticate(new.secret).role is Role.SERVICE
    assert kit.store.caller(new.key.key_id) == kit.store.authenticate(new.secret)
    kit.clock.advance(2 * 86_400 - 1)
    kit.store.authenticate(new.secret)
    kit.clock.advance(1)
    for ask in (lambda: kit.store.authenticate(new.secret), lambda: kit.store.caller(new.key.key_id)):
        with pytest.raises(Unauthenticated) as caught:
            ask()
        assert caught.value.code == "key.expired"


def test_a_revoked_key_is_refused_at_once_and_leaves_the_snapshot(kit):
    owner = kit.owner()
    new = kit.key(owner)
    assert new.key.key_id in {k.key_id for k in kit.store.snapshot_rows()[0]}
    revoked = kit.store.revoke_key(new.key.key_id, by=owner)
    assert revoked.revoked_us is not None
    with pytest.raises(Unauthenticated) as caught:
        kit.store.authenticate(new.secret)
    assert caught.value.code == "key.revoked"
    assert new.key.key_id not in {k.key_id for k in kit.store.snapshot_rows()[0]}
    assert kit.store.revoke_key(new.key.key_id, by=owner) == revoked


def test_a_wrong_secret_learns_nothing(kit):
    owner = kit.owner()
    new = kit.key(owner)
    kit.store.revoke_key(new.key.key_id, by=owner)
    wrong = new.secret[:-4] + ("AAAA" if new.secret[-4:] != "AAAA" else "BBBB")
    unknown = "allod_" + "a" * 12 + new.secret[18:]
    for presented in (wrong, unknown):
        with pytest.raises(Unauthenticated) as caught:
            kit.store.authenticate(presented)
        assert caught.value.code == "key.unknown"


def test_no_secret_is_stored_anywhere(kit, tmp_path):
    owner = kit.owner()
    new = kit.key(owner)
    text = new.secret[len("allod_") + 13 :]
    with kit.store._database.reading() as c:
        for table in metadata.sorted_tables:
            for row in c.execute(table.select()):
                assert text not in str(tuple(row))
    for path in tmp_path.glob("identity.db*"):
        assert text.encode() not in path.read_bytes()


def test_an_administrator_makes_no_owner_and_sees_no_other_organisation(kit):
    owner = kit.owner()
    admin = kit.store.authenticate(kit.key(owner, Role.ADMIN).secret)
    with pytest.raises(Denied, match="above its own"):
        kit.key(admin, Role.OWNER)
    with pytest.raises(Denied):
        kit.store.revoke_key(owner.key_id, by=admin)
    assert kit.store.create_organisation("other", by=OPERATOR_CALLER) == "other"
    kit.store.create_project(
        ProjectRow(id="secret-plans", organisation="other", default_class=2, floor_class=1),
        by=OPERATOR_CALLER,
    )
    foreign = kit.key(OPERATOR_CALLER, Role.OWNER, "secret-plans")
    for attempt in (
        lambda: kit.key(admin, Role.SERVICE, "secret-plans"),
        lambda: kit.key(owner, Role.SERVICE, "secret-plan"),
        lambda: kit.store.revoke_key(foreign.key.key_id, by=owner),
    ):
        with pytest.raises(NotFound) as caught:
            attempt()
        assert "secret-plans" not in caught.value.hint
        assert foreign.key.key_id not in caught.value.hint
    with pytest.raises(Denied):
        kit.store.create_organisation("third", by=owner)
    assert {k.organisation for k in kit.store.list_keys(organisation="other")} == {"other"}
    assert [p.id for p in kit.store.list_projects(organisation="other")] == ["secret-plans"]


def test_the_last_owner_key_is_not_lost_by_a_slip(kit):
    owner = kit.owner()
    with pytest.raises(Denied, match="last usable owner"):
        kit.store.revoke_key(owner.key_id, by=owner)
    second = kit.key(owner, Role.OWNER)
    kit.store.revoke_key(owner.key_id, by=owner)
    with pytest.raises(Denied):
        kit.store.revoke_key(second.key.key_id, by=kit.store.authenticate(second.secret))
    assert kit.store.revoke_key(second.key.key_id, by=OPERATOR_CALLER).revoked_us


def test_two_owners_revoking_each_other_at_once_leave_one(kit):
    first = kit.owner()
    second = kit.store.authenticate(kit.key(first, Role.OWNER).secret)
    barrier = threading.Barrier(2)
    outcomes = []

    def revoke(by, target):
        store = IdentityStore(kit.url, kit.clock)
        barrier.wait()
        try:
            store.revoke_key(target.key_id, by=by)
            outcomes.append("revoked")
        except Denied:
            outcomes.append("denied")
        finally:
            store.close()

    threads = [
        threading.Thread(target=revoke, args=(first, second)),
        threading.Thread(target=revoke, args=(second, first)),
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(outcomes) == ["denied", "revoked"]


def test_an_unknown_project_names_the_nearest(kit):
    owner = kit.owner()
    with pytest.raises(NotFound) as caught:
        kit.key(owner, project="defualt")
    assert caught.value.code == "project.unknown"
    assert "'default'" in caught.value.hint


def test_taken_names_are_refused(kit):
    kit.owner()
    with pytest.raises(Usage) as caught:
        kit.store.create_organisation("default", by=OPERATOR_CALLER)
    assert caught.value.code == "organisation.exists"
    taken = ProjectRow(id="default", organisation="default", default_class=1, floor_class=0)
    with pytest.raises(Usage) as caught:
        kit.store.create_project(taken, by=OPERATOR_CALLER)
    assert caught.value.code == "project.exists"


def test_a_project_keeps_its_classes_and_categories(kit):
    owner = kit.owner()
    row = ProjectRow(
        id="radiology",
        organisation="default",
        default_class=3,
        floor_class=2,
        categories=frozenset({"health", "personal"}),
    )
    kit.store.create_project(row, by=owner)
    assert row in kit.store.snapshot_rows()[1]


def test_the_number_of_keys_is_bounded_and_dead_keys_do_not_count(kit, monkeypatch):
    owner = kit.owner()
    monkeypatch.setattr(limits, "KEYS_PER_PROJECT_MAX", 3)
    kit.key(owner)
    spare = kit.key(owner)
    with pytest.raises(TooLarge) as caught:
        kit.key(owner)
    assert caught.value.code == "key.too-many"
    kit.store.revoke_key(spare.key.key_id, by=owner)
    kit.key(owner)


def test_every_act_is_on_record_with_who_did_it(kit):
    owner = kit.owner()
    new = kit.key(owner)
    kit.store.revoke_key(new.key.key_id, by=owner)
    with pytest.raises(NotFound):
        kit.key(owner, project="nowhere")
    acts = kit.store.acts()
    assert [(a.act, a.by) for a in acts] == [
        ("key.revoke", owner.key_id),
        ("key.create", owner.key_id),
        ("bootstrap", "bootstrap"),
    ]
    assert all(new.secret not in a.detail for a in acts)


def test_migrating_twice_changes_nothing_and_matches_the_tables(kit):
    owner = kit.owner()
    kit.store.migrate()
    assert kit.store.caller(owner.key_id) == owner
    with kit.store._database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_killed_postgres_is_not_ready_and_comes_back(postgres):
    store = IdentityStore(postgres.url, ManualClock())
    store.migrate()
    try:
        new = store.bootstrap()
        assert new is not None
        owner = store.authenticate(new.secret)
        postgres.kill()
        attempts = [
            lambda: store.authenticate(new.secret),
            store.snapshot_rows,
            lambda: store.revoke_key(new.key.key_id, by=owner),
            lambda: IdentityStore(postgres.url).migrate(),
        ]
        for attempt in attempts:
            started = time.monotonic()
            with pytest.raises(NotReady) as caught:
                attempt()
            assert caught.value.code == "identity.database"
            assert time.monotonic() - started < limits.DATABASE_CONNECT_TIMEOUT_S + 2
        postgres.start()
        assert store.authenticate(new.secret) == owner
        assert store.revoke_key(new.key.key_id, by=OPERATOR_CALLER).revoked_us
    finally:
        with store._database.writing() as connection:
            metadata.drop_all(connection)
            connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
        store.close()


def test_a_removed_sqlite_file_is_not_ready_and_never_an_empty_one(tmp_path):
    path = tmp_path / "identity.db"
    store = IdentityStore(f"sqlite:///{path}")
    store.migrate()
    new = store.bootstrap()
    assert new is not None
    path.rename(tmp_path / "away.db")
    for attempt in (store.snapshot_rows, store.bootstrap, lambda: store.migrate(create=False)):
        with pytest.raises(NotReady):
            attempt()
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    assert store.authenticate(new.secret).role is Role.OWNER


def test_a_damaged_sqlite_file_is_not_ready(tmp_path):
    path = tmp_path / "identity.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(NotReady):
        IdentityStore(f"sqlite:///{path}").migrate()


def test_a_sqlite_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "deep" / "identity.db"
    IdentityStore(f"sqlite:///{path}").migrate()
    for made in path.parent.iterdir():
        assert stat.S_IMODE(made.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://a@b/c", "sqlite:///relative.db", "sqlite://", "oracle+x://user:hunter2@h/d"],
)
def test_other_databases_are_refused_without_repeating_a_password(url):
    with pytest.raises(Usage) as caught:
        IdentityStore(url)
    assert "hunter2" not in str(caught.value.as_dict())


def test_a_password_is_not_in_the_error_of_an_absent_server():
    store = IdentityStore("postgresql://allod:hunter2@127.0.0.1:1/allod")
    with pytest.raises(NotReady) as caught:
        store.snapshot_rows()
    assert "hunter2" not in str(caught.value.as_dict())
