"""Brings a database to this version of allod. Forward only; runs inside the caller's transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Applies what is missing, or nothing. SQLite and PostgreSQL both take DDL back on an error."""
    config = Config()
    # alembic expands % in options
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
