"""Alembic's entry: migrates over the connection that `migrations.run` was given, and only so."""

from __future__ import annotations

from alembic import context

from allod.identity.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
