"""A real browser: Chromium without a screen, driven over the W3C WebDriver protocol (www.w3.org/TR/webdriver2).

Owns: chromedriver's process and the few commands that tests of pages need. Refuses to know: the pages.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 20.0
KEYS = {
    "Tab": "\ue004", "Enter": "\ue007", "Shift": "\ue008", "Escape": "\ue00c", "End": "\ue010", "Home": "\ue011",
    "Left": "\ue012", "Right": "\ue014",
}  # fmt: skip
"""Section 17.4.2 of the protocol: keys that are no characters."""
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The protocol's name for the id of an element."""
SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]


class Browser:
    """One window. Elements are named by CSS selectors; a command that acts on an element waits until it is there."""

    def __init__(self, driver: str) -> None:
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": SWITCHES, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._url = f"{driver}/session"
        session = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/{session['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.load(error)["value"]["message"]) from None

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def reload(self) -> None:
        self._call("POST", "/refresh", {})

    def close(self) -> None:
        self._call("DELETE", "")

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a function body in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, *arguments: object) -> Any:
        """Waits until a function body in the page returns something true, and returns that."""
        end = time.monotonic() + PATIENCE_S
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"the page never came to: {script} {arguments}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """The visible text of the first element that matches, once there is one."""
        return str(self.until("const e = document.querySelector(arguments[0]); return e && [e.innerText]", selector)[0])

    def count(self, selector: str) -> int:
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def _find(self, selector: str) -> str:
        """Waits for the first element that matches and is visible."""
        seen = "const e = document.querySelector(arguments[0]); return e && e.checkVisibility() && e"
        return str(self.until(seen, selector)[ELEMENT])

    def press(self, *keys: str) -> None:
        """Keys one after the other, for whatever has the focus; those joined by "+" are held together."""
        actions = []
        for chord in keys:
            values = [KEYS.get(key, key) for key in chord.split("+")]
            actions += [{"type": "keyDown", "value": value} for value in values]
            actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def hover(self, selector: str) -> None:
        move = {"type": "pointerMove", "origin": {ELEMENT: self._find(selector)}, "x": 0, "y": 0}
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def screen(self, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """Sets the size of the screen in CSS pixels, and the preferred colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", **size)
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def forget(self, origin: str) -> None:
        """Leaves the page, and empties what pages of an origin have stored."""
        self.open("about:blank")
        self._devtools("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
        self.complaints()

    def _devtools(self, command: str, **parameters: object) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path, selector: str | None = None) -> None:
        """A PNG file of the window, or of one element in it."""
        place = "" if selector is None else f"/element/{self._find(selector)}"
        path.write_bytes(base64.b64decode(self._call("GET", f"{place}/screenshot")))

    def complaints(self) -> list[str]:
        """Warnings and errors on the console since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]


class BrowserError(Exception):
    """A command failed in the browser."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile. Skips the test where a program that it needs is not installed."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert driver.stdout is not None
        ports = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
        port = next(found[1] for found in ports if found)
        browser = Browser(f"http://127.0.0.1:{port}")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
