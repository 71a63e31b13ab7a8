"""The tables of the store."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

#: Configs and routes, each as the serialized message that the contract knows.
RESOURCES = Table(
    "trunkline_resources",
    METADATA,
    Column("name", String(300), primary_key=True, comment="configs/... or routes/..."),
    Column("etag", String(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

#: One row: how often anything was changed. Whoever has read the same number has read the same resources.
REVISION = Table(
    "trunkline_revision",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)
VERSION_TABLE = "trunkline_store_version"
