"""A browser on the static page, as the tests of the page use it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
browser_only = pytest.mark.skipif(
    not (CHROMIUM and DRIVER and importlib.util.find_spec("selenium")),
    reason="chromium, chromedriver or the package selenium is not installed",
)


class Browser:
    """A headless Chromium on one page."""

    def __init__(self, driver: Any, page: Path) -> None:
        self.driver = driver
        self.page = page

    def open(self, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.page.as_uri() + fragment)
        # On a busy machine the driver may return before the script has run.
        ready = "return document.readyState === 'complete' && !!document.querySelector('#cells tr')"
        deadline = time.monotonic() + 30
        while not self.run(ready):
            assert time.monotonic() < deadline, self.driver.get_log("browser")
            time.sleep(0.05)
        self.run("document.querySelectorAll('details').forEach(it => { it.open = true; })")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def column(self, table: str, title: str) -> list[str]:
        """The texts of a column as they stand."""
        return self.run(
            "const rows = [...document.querySelectorAll(`#${arguments[0]} tr`)];"
            "const place = [...rows[0].children].findIndex(th => th.textContent === arguments[1]);"
            "return rows.slice(1).map(row => row.children[place].textContent);",
            table,
            title,
        )

    def click(self, selector: str, text: str) -> None:
        """Clicks the element that matches and has that text."""
        for found in self.driver.find_elements("css selector", selector):
            if found.get_attribute("textContent") == text:
                self.run("arguments[0].scrollIntoView({block: 'center'})", found)
                found.click()
                return
        raise AssertionError(f"no {selector} reads {text!r}")

    def set(self, control: str, value: str) -> None:
        """Chooses an option or types a text, and lets the page know."""
        self.run(
            "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
            "it.dispatchEvent(new Event(it.tagName === 'SELECT' ? 'change' : 'input'))",
            control,
            value,
        )

    def press(self, key: str) -> None:
        """A key, to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(key)

    def emulate(self, scheme: str, width: int) -> None:
        """A colour scheme and a window's width, until the next test."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # The page hears of it when it is drawn the next time.
        frames = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        self.driver.execute_async_script(frames)

    @property
    def title(self) -> str:
        """As the file of the page has it."""
        return re.findall("<title>(.*)</title>", self.page.read_text(encoding="utf-8"))[0]

    @property
    def fragment(self) -> str:
        return urlsplit(self.driver.current_url).fragment
