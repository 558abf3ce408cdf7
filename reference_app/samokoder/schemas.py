"""What clients send and get."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from samokoder.db import JobName

_EMAIL = r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+$"


_EMAIL_LENGTH = 254


def _as_stored(email: str) -> str:
    """Check the length of what is stored: some letters become two when they are lowered (U+0130)."""
    if len(email) > _EMAIL_LENGTH:
        raise ValueError(f"at most {_EMAIL_LENGTH} characters in lower case")
    return email


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Credentials(_In):
    """Who somebody is, and what proves it."""

    email: Annotated[
        str, StringConstraints(to_lower=True, max_length=_EMAIL_LENGTH, pattern=_EMAIL), AfterValidator(_as_stored)
    ]
    password: SecretStr = Field(min_length=12, max_length=128)


class UserOut(_Out):
    """A user, without what proves it."""

    id: UUID
    email: str
    created_at: datetime


class TokenOut(_Out):
    """What a client sends from now on, as `Authorization: Bearer …`."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - its kind
    expires_in: int = Field(description="seconds")


class JobArgs(_In):
    """Arguments of every job."""

    language: Literal["python", "javascript"] = "python"


class JobIn(_In):
    """What a client sends to have work done."""

    name: JobName = JobName.WRITE_SKELETON
    args: JobArgs = JobArgs()


class JobOut(_Out):
    """A job as it is stored."""

    id: UUID
    project_id: UUID
    name: str
    state: str = Field(description="queued, running, done or failed")
    result: str | None = Field(description="what came of it, or why it failed")
    created_at: datetime
    finished_at: datetime | None


class ProjectIn(_In):
    """What a client sends to create a project."""

    # PostgreSQL keeps no zero byte in a text.
    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$", examples=["Recipe book"])
    notes: str | None = Field(None, max_length=10_000, description="stored encrypted")
    job: JobIn | None = Field(None, description="what the worker is to do for it at once")


class ProjectOut(_Out):
    """A project as it is stored."""

    id: UUID
    name: str
    skeleton: str | None = Field(description="what the worker wrote; null before its first job is done")
    created_at: datetime


class ProjectWithNotes(ProjectOut):
    """A project with its notes, which are not stored as they are shown."""

    notes: str | None = None


class ProjectMade(ProjectWithNotes):
    """A new project with its first job."""

    job: JobOut | None = Field(None, description="null where none was asked for")
