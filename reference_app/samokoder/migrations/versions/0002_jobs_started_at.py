"""When a job's last try began: by it the sweep sees that a worker was lost. Null in what the version before writes."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE jobs ADD COLUMN started_at timestamptz")
