"""Organisations, projects and API keys, with who did what to them.

Guarantees: a secret is never stored and shown exactly once; a revoked or expired key authenticates nobody
from the moment the call returns; every change and its audit row are one transaction; the first key is made
once in the life of the database, also when everything was revoked since; a caller learns nothing about
another organisation, not even that it exists. Blocking: the caller uses a thread. Every method raises
NotReady `identity.database` while the database is gone, and works again when it is back.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from allod import limits
from allod.clock import Clock, SystemClock
from allod.errors import NotFound, TooLarge, Unauthenticated, Usage
from allod.identity import keys, names
from allod.identity.caller import Caller, Role
from allod.identity.database import Database
from allod.identity.roles import OPERATOR, Target, require
from allod.identity.rows import Act, KeyInfo, KeyRow, NewKey, ProjectRow
from allod.identity.tables import acts, marks, organisations, projects
from allod.identity.tables import keys as key_table
from allod.migrations.run import upgrade

_DAY_US = 86_400 * 1_000_000
_INTERNAL = 1
_BOOTSTRAP = "bootstrap"


class IdentityStore:
    """`url`: `sqlite:////absolute/path` or `postgresql://…`."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._database = Database(url)
        self._clock = clock or SystemClock()

    def migrate(self, *, create: bool = True) -> None:
        """Brings the tables to this version. `create` makes an absent SQLite file: for a node's first start.

        Later starts pass False, so that a lost database is an error and never a fresh one with a fresh owner.
        """
        if create:
            self._database.create_file()
        with self._database.writing() as connection:
            upgrade(connection)

    def close(self) -> None:
        self._database.close()

    # --- the first start ------------------------------------------------------------------------------

    def bootstrap(self, organisation: str = "default", project: str = "default") -> NewKey | None:
        """The first owner key, once in the life of the database; afterwards None, for ever."""
        names.check("organisation", organisation)
        names.check("project", project)
        try:
            return self._first_key(organisation, project)
        except IntegrityError:  # another process is starting on the same database, and was first
            return None

    def _first_key(self, organisation: str, project: str) -> NewKey | None:
        now = self._clock.now_us()
        with self._database.writing() as c:
            if c.execute(select(marks.c.name).where(marks.c.name == _BOOTSTRAP)).first():
                return None
            c.execute(insert(marks).values(name=_BOOTSTRAP, at_us=now))
            c.execute(insert(organisations).values(name=organisation, created_us=now))
            row = ProjectRow(id=project, organisation=organisation, default_class=_INTERNAL, floor_class=0)
            _insert_project(c, row, now)
            new = _insert_key(
                c,
                row,
                role=Role.OWNER,
                label="first key",
                now=now,
                days=limits.KEY_LIFETIME_DEFAULT_DAYS,
                by=_BOOTSTRAP,
            )
            detail = f"{organisation}/{project}"
            _record(c, Act(at_us=now, by=_BOOTSTRAP, act=_BOOTSTRAP, target=new.key.key_id, detail=detail))
            return new

    # --- organisations and projects ---------------------------------------------------------------------

    def create_organisation(self, name: str, *, by: Caller) -> str:
        names.check("organisation", name)
        require(by, "organisation.create", Target(organisation=name))
        now = self._clock.now_us()
        try:
            with self._database.writing() as c:
                c.execute(insert(organisations).values(name=name, created_us=now))
                _record(c, Act(at_us=now, by=by.key_id, act="organisation.create", target=name, detail=""))
        except IntegrityError as e:
            raise _taken("organisation", name) from e
        return name

    def create_project(self, project: ProjectRow, *, by: Caller) -> ProjectRow:
        """NotFound `organisation.unknown`, Usage `project.exists`, Denied `role.denied`."""
        names.check_project(project)
        require(by, "project.create", Target(organisation=project.organisation))
        now = self._clock.now_us()
        try:
            with self._database.writing() as c:
                _lock_organisation(c, project.organisation)
                _insert_project(c, project, now)
                detail = f"default {project.default_class}, floor {project.floor_class}"
                _record(
                    c, Act(at_us=now, by=by.key_id, act="project.create", target=project.id, detail=detail)
                )
        except IntegrityError as e:
            raise _taken("project", project.id) from e
        return project

    def list_projects(self, *, organisation: str | None = None) -> list[ProjectRow]:
        query = select(projects).order_by(projects.c.id)
        if organisation is not None:
            query = query.where(projects.c.organisation == organisation)
        with self._database.reading() as c:
            return [_project(row) for row in c.execute(query)]

    # --- keys -------------------------------------------------------------------------------------------

    def create_key(self, *, by: Caller, project: str, role: Role, label: str, lifetime_days: int) -> NewKey:
        """NotFound `project.unknown` (nearest name), TooLarge `key.too-many`, Denied `role.denied`."""
        names.check_label(label)
        names.check_lifetime(lifetime_days)
        now = self._clock.now_us()
        with self._database.writing() as c:
            row = _find_project(c, project, by)
            require(by, "key.create", Target(organisation=row.organisation, project=project, role=role))
            _lock_organisation(c, row.organisation)
            live = select(func.count()).where(key_table.c.project == project, *_usable(now))
            if c.execute(live).scalar_one() >= limits.KEYS_PER_PROJECT_MAX:
                raise TooLarge(
                    "key.too-many",
                    f"project {project!r} has {limits.KEYS_PER_PROJECT_MAX} usable keys, which is the bound",
                    hint="revoke some: allod key list, allod key revoke",
                )
            new = _insert_key(c, row, role=role, label=label, now=now, days=lifetime_days, by=by.key_id)
            detail = f"{role.value} in {project}, {lifetime_days} days"
            _record(c, Act(at_us=now, by=by.key_id, act="key.create", target=new.key.key_id, detail=detail))
            return new

    def list_keys(self, *, organisation: str | None = None, project: str | None = None) -> list[KeyInfo]:
        """All keys, also revoked and expired ones, oldest first."""
        query = _keys_with_project().order_by(key_table.c.created_us, key_table.c.key_id)
        if organisation is not None:
            query = query.where(projects.c.organisation == organisation)
        if project is not None:
            query = query.where(key_table.c.project == project)
        with self._database.reading() as c:
            return [_info(row) for row in c.execute(query)]

    def revoke_key(self, key_id: str, *, by: Caller) -> KeyInfo:
        """Revoking a revoked key changes nothing. NotFound `key.unknown-id`, Denied `role.denied`."""
        now = self._clock.now_us()
        with self._database.writing() as c:
            _lock_organisation(c, _visible_key(c, key_id, by).organisation)
            info = _find_key(c, key_id)  # again, now that nobody else can change it
            if info.revoked_us is not None:
                require(by, "key.revoke", _target(info, last_owner=False))
                return info
            require(by, "key.revoke", _target(info, last_owner=_is_last_owner(c, info, now)))
            c.execute(update(key_table).where(key_table.c.key_id == key_id).values(revoked_us=now))
            _record(
                c,
                Act(
                    at_us=now,
                    by=by.key_id,
                    act="key.revoke",
                    target=key_id,
                    detail=f"{info.role.value} in {info.project}",
                ),
            )
            return _find_key(c, key_id)

    def authenticate(self, presented: str) -> Caller:
        """Unauthenticated `key.malformed`, `key.unknown`, `key.revoked`, `key.expired`.

        That a key was revoked or has expired is said only to someone who has its secret.
        """
        key_id, secret = keys.parse(presented)
        query = _keys_with_project().where(key_table.c.key_id == key_id)
        with self._database.reading() as c:
            row = c.execute(query).first()
        known = row.secret_sha256 if row is not None else bytes(32)
        if not keys.matches(secret, known) or row is None:
            raise Unauthenticated("key.unknown", "this API key is not known here", hint="allod key create")
        return _valid_caller(_info(row), self._clock.now_us())

    def caller(self, key_id: str) -> Caller:
        """Who a key is now, without its secret: for sessions that were opened with it. As `authenticate`."""
        with self._database.reading() as c:
            row = c.execute(_keys_with_project().where(key_table.c.key_id == key_id)).first()
        if row is None:
            raise Unauthenticated("key.unknown", "this API key is not known here", hint="allod key create")
        return _valid_caller(_info(row), self._clock.now_us())

    # --- what others are built from ---------------------------------------------------------------------

    def snapshot_rows(self) -> tuple[list[KeyRow], list[ProjectRow]]:
        """Every key that is not revoked, and every project, of one moment."""
        live = select(key_table).where(key_table.c.revoked_us.is_(None)).order_by(key_table.c.key_id)
        with self._database.reading() as c:
            found = [
                KeyRow(
                    key_id=row.key_id,
                    secret_sha256=bytes(row.secret_sha256),
                    project=row.project,
                    role=Role(row.role),
                    expires_us=row.expires_us,
                )
                for row in c.execute(live)
            ]
            return found, [_project(row) for row in c.execute(select(projects).order_by(projects.c.id))]

    def acts(self, *, limit: int = 100) -> list[Act]:
        """The latest administrative acts, newest first."""
        query = select(acts).order_by(acts.c.id.desc()).limit(limit)
        with self._database.reading() as c:
            return [
                Act(at_us=r.at_us, by=r.by_key, act=r.act, target=r.target, detail=r.detail)
                for r in c.execute(query)
            ]


def _insert_project(c: Connection, project: ProjectRow, now: int) -> None:
    c.execute(
        insert(projects).values(
            id=project.id,
            organisation=project.organisation,
            default_class=int(project.default_class),
            floor_class=int(project.floor_class),
            categories=",".join(sorted(project.categories)),
            created_us=now,
        )
    )


def _insert_key(
    c: Connection, project: ProjectRow, *, role: Role, label: str, now: int, days: int, by: str
) -> NewKey:
    fresh = keys.create()
    c.execute(
        insert(key_table).values(
            key_id=fresh.key_id,
            secret_sha256=fresh.secret_sha256,
            label=label,
            project=project.id,
            role=role.value,
            created_us=now,
            created_by=by,
            expires_us=now + days * _DAY_US,
        )
    )
    return NewKey(key=_find_key(c, fresh.key_id), secret=fresh.text)


def _record(c: Connection, act: Act) -> None:
    row = {"at_us": act.at_us, "by_key": act.by, "act": act.act, "target": act.target, "detail": act.detail}
    c.execute(insert(acts).values(row))


def _lock_organisation(c: Connection, name: str) -> None:
    """Serialises what counts keys or owners; on SQLite the one writer does that by itself."""
    query = select(organisations.c.name).where(organisations.c.name == name).with_for_update()
    if c.execute(query).first() is None:
        known = [r.name for r in c.execute(select(organisations.c.name))]
        raise _not_found("organisation.unknown", "organisation", name, known)


def _find_project(c: Connection, project: str, by: Caller) -> ProjectRow:
    visible = select(projects)
    if by.key_id != OPERATOR:
        visible = visible.where(projects.c.organisation == by.organisation)
    row = c.execute(visible.where(projects.c.id == project)).first()
    if row is None:
        raise _not_found("project.unknown", "project", project, [r.id for r in c.execute(visible)])
    return _project(row)


def _visible_key(c: Connection, key_id: str, by: Caller) -> KeyInfo:
    visible = _keys_with_project()
    if by.key_id != OPERATOR:
        visible = visible.where(projects.c.organisation == by.organisation)
    row = c.execute(visible.where(key_table.c.key_id == key_id)).first()
    if row is None:
        raise _not_found("key.unknown-id", "key", key_id, [r.key_id for r in c.execute(visible)])
    return _info(row)


def _find_key(c: Connection, key_id: str) -> KeyInfo:
    return _info(c.execute(_keys_with_project().where(key_table.c.key_id == key_id)).one())


def _is_last_owner(c: Connection, key: KeyInfo, now: int) -> bool:
    if key.role is not Role.OWNER or key.expires_us <= now:
        return False
    others = (
        select(func.count())
        .select_from(key_table.join(projects, key_table.c.project == projects.c.id))
        .where(
            projects.c.organisation == key.organisation,
            key_table.c.role == Role.OWNER.value,
            key_table.c.key_id != key.key_id,
            *_usable(now),
        )
    )
    return int(c.execute(others).scalar_one()) == 0


def _usable(now: int) -> tuple[Any, Any]:
    return key_table.c.revoked_us.is_(None), key_table.c.expires_us > now


def _keys_with_project() -> Any:
    return select(key_table, projects.c.organisation).join(projects, key_table.c.project == projects.c.id)


def _target(info: KeyInfo, *, last_owner: bool) -> Target:
    return Target(
        organisation=info.organisation,
        project=info.project,
        role=info.role,
        key_id=info.key_id,
        last_owner=last_owner,
    )


def _valid_caller(info: KeyInfo, now: int) -> Caller:
    if info.revoked_us is not None:
        raise Unauthenticated("key.revoked", "this API key has been revoked", hint="allod key create")
    if now >= info.expires_us:
        raise Unauthenticated("key.expired", "this API key has expired", hint="allod key create")
    return Caller(key_id=info.key_id, organisation=info.organisation, project=info.project, role=info.role)


def _project(row: Row[Any]) -> ProjectRow:
    return ProjectRow(
        id=row.id,
        organisation=row.organisation,
        default_class=row.default_class,
        floor_class=row.floor_class,
        categories=frozenset(c for c in row.categories.split(",") if c),
    )


def _info(row: Row[Any]) -> KeyInfo:
    return KeyInfo(
        key_id=row.key_id,
        label=row.label,
        project=row.project,
        organisation=row.organisation,
        role=Role(row.role),
        created_us=row.created_us,
        expires_us=row.expires_us,
        created_by=row.created_by,
        revoked_us=row.revoked_us,
    )


def _taken(what: str, name: str) -> Usage:
    return Usage(f"{what}.exists", f"the {what} {name!r} exists already", hint="choose another name")


def _not_found(code: str, what: str, name: str, known: Sequence[str]) -> NotFound:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"list what there is: allod {what} list"
    return NotFound(code, f"there is no {what} {name[:64]!r}", hint=hint)
