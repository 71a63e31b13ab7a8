"""Runs revisions on the connection that `schema` made; Alembic's command line is not used."""

from alembic import context

from trunkline_server.traces.postgresql.schema import SCHEMA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], version_table=VERSION_TABLE, version_table_schema=SCHEMA
)
with context.begin_transaction():
    context.run_migrations()
