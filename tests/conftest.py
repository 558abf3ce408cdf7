"""What all tests share. The recording engine is in `tests/recording.py`."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # The pinned Grafana SDK says so of its own class, at import; Grafana 13 reads the classic format all the same.
    config.addinivalue_line("filterwarnings", "ignore:Prefer using dashboardv2:DeprecationWarning")
