"""A database that is honest about being gone: NotReady `identity.database`, and back when it is back.

SQLite by default (WAL, synchronous, one file of mode 0600, opened per transaction so that a removed file is
noticed instead of written to), PostgreSQL by URL. Blocking: the caller uses a thread.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from allod.errors import NotReady, Usage
from allod.limits import DATABASE_BUSY_TIMEOUT_S, DATABASE_CONNECT_TIMEOUT_S

_WRITES = "allod_writes"


class Database:
    """One database. Nothing is opened before the first transaction."""

    def __init__(self, url: str) -> None:
        """`sqlite:////absolute/path` or `postgresql://…`. Raises Usage `identity.database-url`."""
        self._path: Path | None = None
        parsed = _parse(url)
        if parsed.drivername == "sqlite":
            self._path = Path(str(parsed.database))
            self._engine = _sqlite(self._path)
        else:
            self._engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                pool_size=4,
                max_overflow=4,
                pool_timeout=DATABASE_CONNECT_TIMEOUT_S,
                connect_args={"connect_timeout": DATABASE_CONNECT_TIMEOUT_S},
            )
        self.name = parsed.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Commits at the end, or rolls back on any error. One writer at a time on SQLite."""
        with self._transaction(writes=True) as connection:
            yield connection

    def create_file(self) -> None:
        """Makes an absent SQLite file, readable by its owner only; PostgreSQL has its own ways."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as e:
            raise self._gone() from e

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        engine = self._engine.execution_options(**{_WRITES: writes})
        try:
            with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise  # a name that is taken: the store knows which
        except SQLAlchemyError as e:
            raise self._gone() from e

    def _gone(self) -> NotReady:
        return NotReady(
            "identity.database",
            f"the identity database {self.name} does not answer",
            hint="start it or restore its file; running fronts keep deciding with what they know",
            retry_after_s=2,
        )


def _parse(url: str) -> URL:
    hint = "use sqlite:////absolute/path/identity.db or postgresql://user@host/database"
    try:
        parsed = make_url(url)
    except ArgumentError as e:
        raise Usage("identity.database-url", "the database address cannot be read", hint=hint) from e
    if parsed.drivername == "sqlite":
        if not parsed.database or not parsed.database.startswith("/"):
            raise Usage("identity.database-url", "a SQLite address needs an absolute path", hint=hint)
        return parsed
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise Usage("identity.database-url", f"{parsed.drivername!r} is not supported", hint=hint)
    if importlib.util.find_spec("psycopg") is None:
        raise NotReady(
            "identity.driver-missing",
            "the PostgreSQL driver is not installed",
            hint="pip install 'allod[postgresql]'",
        )
    return parsed


def _sqlite(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: a file that has gone is an error, never silently a new and empty database
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=DATABASE_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes: Any = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
