"""The tables as they were before there were migrations, when the service itself made them at its start.

A database of that time has them already, but not always the newest columns: what is missing is made, and nothing else.
"""

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = (
    """CREATE TABLE IF NOT EXISTS users (
        id uuid PRIMARY KEY, email varchar(254) NOT NULL UNIQUE, password_hash varchar(200) NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS projects (
        id uuid PRIMARY KEY, name varchar(100) NOT NULL, skeleton text,
        created_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS jobs (
        id uuid PRIMARY KEY, project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
        name varchar(50) NOT NULL, state varchar(10) NOT NULL, result text,
        created_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz)""",
    "CREATE INDEX IF NOT EXISTS ix_projects_created_at ON projects (created_at)",
    "CREATE INDEX IF NOT EXISTS ix_jobs_project_id ON jobs (project_id)",
    "ALTER TABLE projects ADD COLUMN IF NOT EXISTS sealed_notes bytea",
    "ALTER TABLE jobs ADD COLUMN IF NOT EXISTS arguments json NOT NULL DEFAULT '{}'",
)


def upgrade() -> None:
    """Make what is missing."""
    for statement in _STATEMENTS:
        op.execute(statement)
