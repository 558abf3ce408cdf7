"""Whose a project is, and indexes for what the worker looks for each minute: jobs that are not over, and old ones.

The version before writes projects without an owner, which is what null says.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

_STATEMENTS = (
    "ALTER TABLE projects ADD COLUMN owner_id uuid REFERENCES users ON DELETE CASCADE",
    "CREATE INDEX ix_projects_owner_id ON projects (owner_id) WHERE owner_id IS NOT NULL",
    "CREATE INDEX ix_jobs_open ON jobs (created_at, id) WHERE state IN ('queued', 'running')",
    "CREATE INDEX ix_jobs_finished_at ON jobs (finished_at) WHERE finished_at IS NOT NULL",
)


def upgrade() -> None:
    """Add the column and the indexes."""
    for statement in _STATEMENTS:
        op.execute(statement)
