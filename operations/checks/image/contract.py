"""What is checked of an image, by name."""

from __future__ import annotations

from enum import StrEnum


class ImageCheck(StrEnum):
    """What is checked, in the order of the table."""

    MIGRATES = "migrates the database"
    HARDENED = "hardened container"
    COMMAND = "command"
    PORT = "port"
    HEALTH = "/health"
    READY = "ready"
    METRICS = "required metrics"
    OPTIONAL = "optional metrics"
    FILES = "secrets from files"
    FERNET = "takes its APP_SECRET_KEY"
    LOGIN = "logs in to Redis"
    MISSING = "refuses missing secrets"
    WEAK = "refuses weak secrets"
    DEFAULT = "refuses default secrets"
    EQUAL = "refuses equal secrets"
    STOPS = "stops on SIGTERM"
    DRAINS = "drains on SIGTERM"
    SILENT = "no secret in its log"


REFUSALS = frozenset({ImageCheck.MISSING, ImageCheck.WEAK, ImageCheck.DEFAULT, ImageCheck.EQUAL})
"""Checks that an image refuses wrong secrets; the stack itself never gives an image such a secret."""
