"""Alembic's entry: runs on the connection that `db.migrate` hands over, inside its transaction."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="public")
context.run_migrations()
