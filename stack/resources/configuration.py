"""The one place that reads Pulumi's configuration."""

from __future__ import annotations

import json
import os

import pulumi

from stack.settings.environment import Environment
from stack.settings.reading import read_environment


def environment_from_pulumi() -> Environment:
    """Read the running stack's configuration. Raises InvalidSettingsError with every mistake at once."""
    # The whole map, not key by key: a key that nobody knows is a mistake too, and pulumi.Config cannot list.
    # Both variables are how Pulumi's language host hands the configuration to a program.
    config = json.loads(os.environ.get("PULUMI_CONFIG", "{}"))
    secret_keys = json.loads(os.environ.get("PULUMI_CONFIG_SECRET_KEYS", "[]"))
    return read_environment(pulumi.get_stack(), config, frozenset(secret_keys))
