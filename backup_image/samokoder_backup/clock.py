"""Stamps of a time to come: a clock was ahead once. They are told, and not believed until their time has come."""

from __future__ import annotations

import time

SLACK_SECONDS = 300.0
"""So far may the clock of another machine differ."""


def ahead(stamp: float) -> bool:
    """Tell whether a time stamp is of a time to come."""
    return stamp > time.time() + SLACK_SECONDS
