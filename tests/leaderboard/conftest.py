"""A headless browser on the static page, shared by the tests of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from leaderboard import write_boards
from leaderboard.boards import BOARDS_FOLDER
from tests.leaderboard.page_browser import CHROMIUM, DRIVER, Browser
from tests.leaderboard.page_records import make_records
from tests.records import write_records


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1600")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def page_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output with space")
    write_records(output, make_records())
    write_boards(output, figures=False)
    return output


@pytest.fixture
def browser(driver: Any, page_output: Path) -> Iterator[Browser]:
    """The page, freshly opened; afterwards, nothing may have been complained about or fetched."""
    browser = Browser(driver, page_output / BOARDS_FOLDER / "page" / "index.html")
    browser.emulate("light", 1400)
    # What another test's page, still open, had to say.
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")
    browser.open()
    yield browser
    assert driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(urls) >= 4
    assert {urlsplit(url).scheme for url in urls} <= {"file", "data", "about"}
