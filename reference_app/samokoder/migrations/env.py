"""What Alembic runs for every command; the connection, in a transaction, is `samokoder.migrate`'s."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
