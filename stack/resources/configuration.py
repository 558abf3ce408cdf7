"""The one place that reads Pulumi's configuration."""

from __future__ import annotations

import json
import os

import pulumi

from stack.settings.environment import Environment
from stack.settings.reading import read_environment


def environment_from_pulumi() -> Environment:
    """Read the running stack's configuration. Raises InvalidSettingsError with every mistake at once."""
    # The whole map, because an unknown key is a mistake too and pulumi.Config cannot list keys. Pulumi's language host
    # passes the configuration to a program in these two variables.
    config = json.loads(os.environ.get("PULUMI_CONFIG", "{}"))
    secret_keys = json.loads(os.environ.get("PULUMI_CONFIG_SECRET_KEYS", "[]"))
    return read_environment(pulumi.get_stack(), config, frozenset(secret_keys))
