"""What a person does with the page, and what the scripted model answers."""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser import PATIENCE_S, Browser
from tests.server.suites.serving import Server, served

CAPITAL = "The capital is **Paris**.\n\n- one\n- two\n\n```python\nif a < b:\n    print(1)\n```\n"
STORY = "".join(f"Once upon a time there were {n} bears. " for n in range(1000))
HOSTILE = "<img src=x onerror=\"document.title='evil'\"> <b>b</b> **<i>x</i>** <script>document.title='evil'</script>"
ANSWERS = {
    "capital": CAPITAL,
    "story": STORY,
    "hostile": HOSTILE,
    "reason": "<think>Let me see.</think>It is so.",
    "weather": '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
}
DEFAULT = "Well."
SCRIPT = {
    "answers": [{"when": f"{word}[^|]*$", "say": text} for word, text in ANSWERS.items()],
    "default": DEFAULT,
    "delay_ms": 1,  # so that there is time to stop an answer
}

DESK, PHONE = (1360, 850), (360, 740)
"""Sizes of windows."""
IDLE = "return document.getElementById('send').textContent === 'Send'"
TURNS = "return turns.map((turn) => [turn.question, turn.answer.text, turn.answer.finish])"
BOX = "return document.getElementById('box').value"
BEGUN = "return turns.at(-1)?.answer.text.length > 50"
NOTHING_RUNS = "return document.getElementById('running').textContent === '0'"
READY = "return document.querySelector('#health.ready')"
LAST_QUESTION, LAST_ANSWER = ".turn:last-child .question", ".turn:last-child .answer"
RETRY = f"{LAST_ANSWER} .actions button:last-child"


def scripted(folder: Path, *flags: str) -> contextlib.AbstractContextManager[Server]:
    """A server whose model says what the script says."""
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT), encoding="utf-8")
    return served("--stub", str(script), *flags)


def visit(browser: Browser, url: str) -> None:
    """Opens the page as if for the first time."""
    browser.screen(*DESK)
    browser.forget(url)
    browser.open(f"{url}/")
    browser.until(READY)


def begin(page: Browser, question: str) -> None:
    """Asks. The question is on its way when this returns."""
    page.type("#box", question)
    page.press("Enter")


def ask(page: Browser, question: str) -> None:
    """Asks, and waits for the end of the answer."""
    begin(page, question)
    page.until(IDLE)


def set_to(page: Browser, name: str, value: str) -> None:
    page.run("form.elements[arguments[0]].value = arguments[1]; settingsChanged()", name, value)


def sent(page: Browser, act: Callable[[], None]) -> dict[str, Any]:
    """The body of the request that follows from an act."""
    page.run("""
        const old = window.fetch;
        window.sent = [];
        window.fetch = (path, options) => {
            if (options?.body) window.sent.push(options.body);
            return old(path, options);
        };""")
    act()
    return dict(json.loads(page.until("return window.sent[0]")))


def running(server: Server) -> float:
    """How many sequences the engine computes, by its own account."""
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        found = re.search(r"^ferrum_num_requests_running (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def rests(server: Server) -> bool:
    """Does the engine come to compute nothing?"""
    end = time.monotonic() + PATIENCE_S
    while running(server) and time.monotonic() < end:
        time.sleep(0.02)
    return running(server) == 0
