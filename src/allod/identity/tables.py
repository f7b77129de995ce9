"""The identity tables. What a migration makes, this describes; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

metadata = MetaData()

organisations = Table(
    "organisations",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organisation", String(64), ForeignKey("organisations.name"), nullable=False),
    Column("default_class", SmallInteger, nullable=False),
    Column("floor_class", SmallInteger, nullable=False),
    Column("categories", String(255), nullable=False),  # sorted, separated by a comma
    Column("created_us", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(12), primary_key=True),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("label", String(64), nullable=False),
    Column("project", String(64), ForeignKey("projects.id"), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String(12), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger, nullable=True),
    Index("keys_by_project", "project"),
)

acts = Table(
    "acts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("by_key", String(12), nullable=False),
    Column("act", String(32), nullable=False),
    Column("target", String(64), nullable=False),
    Column("detail", String(255), nullable=False),
)

marks = Table(  # what happens once in the life of a node
    "marks",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
