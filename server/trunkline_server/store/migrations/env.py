"""Runs steps on the connection that the store made; Alembic's command line is not used."""

from alembic import context

from trunkline_server.store.tables import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
