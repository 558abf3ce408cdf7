"""The reference page in a real browser, as somebody uses it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.chromium import console

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

PATIENCE_SECONDS = 120.0


def _started(setup: Setup) -> tuple[Service, Service]:
    """Give an API that is ready and the page in front of it, without a worker."""
    api = setup.api()
    api.wait_until("/ready")
    page = setup.frontend(api.url)
    page.wait_until("/health")
    return api, page


def _open_a_job(page: Service, chromium: webdriver.Chrome) -> WebDriverWait[webdriver.Chrome]:
    job = page.post("/app/projects", data={"name": "x", "kind": "write_skeleton"}).headers["location"]
    chromium.get(f"{page.url}{job}")
    assert _text(chromium, "state") == "queued"
    return WebDriverWait(chromium, PATIENCE_SECONDS)


def _text(chromium: webdriver.Chrome, key: str) -> str:
    return chromium.find_element(By.ID, key).text


@pytest.mark.usefixtures("alone")
def test_somebody_sees_the_status_submits_a_job_and_watches_it_to_its_end(
    setup: Setup, chromium: webdriver.Chrome
) -> None:
    _api, page = _started(setup)
    wait = WebDriverWait(chromium, PATIENCE_SECONDS)

    chromium.get(page.url)
    assert chromium.current_url == f"{page.url}/app/"
    facts = [element.text for element in chromium.find_elements(By.CSS_SELECTOR, "dt, dd")]
    assert facts[:4] == ["API", "ok", "Ready", "ok"], "the status is seen"

    name = f"<script>document.title = 'mine'</script><b>{uuid.uuid4()}</b>"
    chromium.find_element(By.NAME, "name").send_keys(name)
    Select(chromium.find_element(By.NAME, "kind")).select_by_visible_text("Generate code")
    chromium.find_element(By.TAG_NAME, "button").click()
    wait.until(lambda _: "/app/jobs/" in chromium.current_url)
    assert _text(chromium, "state") == "queued", "no worker runs yet"
    chromium.execute_script("window.loaded = 'once'")

    setup.worker()
    wait.until(lambda _: _text(chromium, "state") == "done")
    assert "sha256" in _text(chromium, "result")
    assert _text(chromium, "finished_at")
    assert chromium.execute_script("return window.loaded") == "once", "all that came by the stream, without a reload"
    assert "the API is away" not in page.said()

    chromium.find_element(By.LINK_TEXT, "Samokoder").click()
    wait.until(lambda _: chromium.current_url == f"{page.url}/app/")
    assert name in chromium.find_element(By.TAG_NAME, "ul").text, "script in a project's name is text"
    assert chromium.title == "Samokoder", "and was not run"
    assert console(chromium) == [], "no error, and nothing that the policy had to stop"

    inline = "const script = document.createElement('script'); script.text = 'document.title = 1';"
    chromium.execute_script(f"{inline} document.body.append(script)")
    assert chromium.title == "Samokoder", "the policy stops what is not a file of the page"
    assert "Content Security Policy" in console(chromium)[0]["message"], "so the console would have told above"


@pytest.mark.usefixtures("alone")
def test_a_page_whose_stream_was_refused_opens_it_again(setup: Setup, chromium: webdriver.Chrome) -> None:
    api, page = _started(setup)
    wait = _open_a_job(page, chromium)
    api.stop()
    wait.until(lambda _: "the API is away" in page.said(), "a browser does not try again by itself after a 503")
    api.start()
    setup.worker()
    wait.until(lambda _: _text(chromium, "state") == "done")


@pytest.mark.usefixtures("alone")
def test_without_javascript_the_page_of_a_job_loads_itself_again(setup: Setup, chromium: webdriver.Chrome) -> None:
    _api, page = _started(setup)
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        wait = _open_a_job(page, chromium)
        setup.worker()
        wait.until(lambda _: '<dd id="state" role="status" aria-live="polite">done</dd>' in chromium.page_source)
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "/events" not in page.said(), "nothing opened a stream"
