"""What breaks a rule of the hardening gate on purpose: `hardening.yaml`, with a reason and an expiry date each."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from operations.audit.rules import RULES, Broken
from operations.errors import ProjectError

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "hardening.yaml"


class Allowed(BaseModel):
    """An exception: what may break a rule, why, and the date on which somebody has to decide again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: str = Field(min_length=1)
    """Name of a part, or a pattern of names: `api-*`."""
    rule: str
    what: str = Field(min_length=1)
    """The word that the rule yields, or a pattern of such words."""
    reason: str = Field(min_length=20)
    expires: date
    only: str = ""
    """Settings with which the exception is needed; empty: it is needed always."""

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
        return rule

    def allows(self, broken: Broken) -> bool:
        """Whether the exception covers this finding."""
        return self.rule == broken.rule and fnmatchcase(broken.part, self.part) and fnmatchcase(broken.what, self.what)


def exceptions(file: Path = LIST) -> list[Allowed]:
    """Read the list. Raises ProjectError with every mistake in it."""
    try:
        return TypeAdapter(list[Allowed]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
    except (OSError, yaml.YAMLError) as error:
        raise ProjectError(f"{file.name} cannot be read: {error}") from None
    except ValidationError as error:
        mistakes = (
            f"entry {place[0] + 1}{''.join(f', {key}' for key in place[1:])}: {mistake['msg']}"
            if isinstance(place[0], int)
            else mistake["msg"]
            for mistake in error.errors()
            for place in [mistake["loc"] or ("list",)]
        )
        raise ProjectError(f"{file.name}: {'; '.join(mistakes)}") from None
