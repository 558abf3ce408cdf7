"""A real browser, for the pages of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium import webdriver

#: The browser's names: Debian's, Ubuntu's, and Google's as on hosted runners.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _find() -> tuple[str | None, str | None]:
    return next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    """A headless Chromium; Debian's packages are installed when it or its driver is not here.

    Where that cannot be done, the error names what is missing: a test that cannot run has not passed.
    """
    from selenium import webdriver  # noqa: PLC0415 - what few tests need

    from host.packages import install_packages  # noqa: PLC0415
    from host.progress import Reporter  # noqa: PLC0415

    if not all(_find()):
        install_packages(["chromium", "chromium-driver"], report=Reporter().say)
    browser, driver = _find()
    assert browser, "the package `chromium` brought no browser"
    assert driver, "the package `chromium-driver` brought no driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.add_argument("--headless=new")
    options.add_argument("--no-proxy-server")  # our own pages alone, on this machine
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses root with one, and it only sees our own page
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def console(chromium: webdriver.Chrome) -> list[dict[str, Any]]:
    """Give what the browser's console got since it was last asked, violations of the page's policy too."""
    return list(chromium.get_log("browser"))  # type: ignore[no-untyped-call]
