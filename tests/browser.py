"""A browser for tests of pages: headless Chromium, by WebDriver, without a network.

The fixture `browser` (in conftest.py) is one for all tests; `browser.open(page)` shows a file.
"""

import base64
import json
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage"
)


def unavailable(what):
    """Skips, but not where it is decided whether a change lands."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@contextmanager
def started(profile):
    """A browser whose profile is a new and empty folder."""
    if not CHROMIUM or not DRIVER:
        unavailable("there is no chromium with its chromedriver: apt-get install chromium-driver")
    try:
        from selenium import webdriver
    except ImportError:
        unavailable("selenium is not installed: python -m pip install -e '.[test]'")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """Selenium's driver, and what tests of a page keep asking."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, *, width=1000, height=900, dark=False):
        """Show a file in a window of this size, as a phone would if it is a narrow one."""
        self.resize(width, height)
        self.dark(dark)
        self.logs()  # what came before is not this page's
        self.driver.get(Path(page).resolve().as_uri())
        for _ in range(200):  # a browser that has just started may not have laid out anything yet
            if self.js("return document.documentElement.getBoundingClientRect().width"):
                break
            time.sleep(0.02)

    def resize(self, width, height=900):
        self.command(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def dark(self, dark=True):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", {"features": [scheme]})

    def command(self, name, arguments):
        """One of Chromium's own, beyond WebDriver's."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def js(self, code, *arguments):
        """What JavaScript `return`s; elements come and go as selenium's."""
        return self.driver.execute_script(code, *arguments)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def data(self):
        """The numbers that stand in the page as JSON."""
        return json.loads(self.js("return document.getElementById('data').textContent"))

    def logs(self):
        """What the console said since the last time, and the addresses that were asked for."""
        said = [line["message"] for line in self.driver.get_log("browser")]
        events = [json.loads(x["message"])["message"] for x in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return said, [address for address in asked if address.startswith(("http", "ws", "ftp"))]

    def overflow(self):
        """How many pixels of the page are beyond the window's side."""
        return self.js(
            "const page = document.documentElement;"
            "return Math.max(page.scrollWidth, document.body.scrollWidth) - window.innerWidth"
        )

    def violations(self):
        """What axe-core holds to be a serious or critical fault for people with disabilities."""
        import axe_core_python

        code = Path(axe_core_python.__path__[0]) / "axe.min.js"
        self.js(code.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run().then(answer => done(answer.violations), error => done(String(error)))"
        )
        assert isinstance(found, list), found
        return [
            f"{fault['id']}: {[node['html'] for node in fault['nodes'][:3]]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def pdf(self):
        """The page as it is printed on A4. Chromium now and then gives up at once: not thrice."""
        from selenium.common.exceptions import WebDriverException

        for last in (False, False, True):
            try:
                printed = self.command("Page.printToPDF", {"preferCSSPageSize": True})
                break
            except WebDriverException:
                if last:
                    raise
        return base64.b64decode(printed["data"])

    def picture(self, path, *, whole=True):
        """A screenshot, of all the page or of what the window shows."""
        shot = self.command("Page.captureScreenshot", {"captureBeyondViewport": whole})
        Path(path).write_bytes(base64.b64decode(shot["data"]))
