"""Makes the pictures of docs/glass-box.md from real runs of the default model.

Run it by `python -m tests.trace.page.screenshots`. It needs chromium, chromedriver, and the model
(`ferrum-ref pull smollm2-135m-instruct`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.browser import Browser, chromium
from tests.house.source import ROOT

PICTURES = ROOT / "docs" / "pictures"
ONE = ("Why is the sky blue?", "-n", "24", "--seed", "5", "--temperature", "0.9", "--min-p", "0.02")
SEVERAL = (
    "Write one sentence about the sea.", "Write one sentence about the sea at night.", "What is the capital of France?",
    "Name three colours.", "-n", "40", "--seed", "1", "--kv-memory", "9MiB", "--host-kv-memory", "6MiB",
    "--max-num-batched-tokens", "48", "--attention", "0,11,29",
)  # fmt: skip
"""Four prompts in memory for three."""
QUICKEST = """
    const sum = (step) => (step.launches ?? []).reduce((total, [, , us]) => total + us, 0);
    const steps = view.trace.steps.map((step, index) => [sum(step), index]).filter(([us, index]) => us && index > 9);
    return steps.sort(([a], [b]) => a - b)[0][1];"""
"""The step that other programs disturbed least; not one of the first, in which there is little to see."""
PREEMPTED = """
    const wanted = (step) => step.events.some((event) => event.kind === 'preempted');
    return view.trace.steps.findIndex(wanted);"""


def show(browser: Browser, folder: Path, *arguments: str) -> None:
    """Records a run and opens its page."""
    file = folder / "trace.html"
    subprocess.run([sys.executable, "-m", "ferrum", "trace", *arguments, "-o", str(file)], check=True)
    browser.open(file.as_uri())
    browser.until("return window.view !== undefined")


def main() -> None:
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        browser.screen(1400, 1220)
        show(browser, Path(folder), *ONE)
        browser.run("view.set({ step: arguments[0], layer: 11, head: 5 })", browser.run(QUICKEST))
        browser.picture(PICTURES / "glass-page.png")
        browser.screen(1400, 2000)  # so that each panel is seen in full
        for panel in ("memory", "distribution", "attention", "launches"):
            browser.picture(PICTURES / f"glass-{panel}.png", f"#{panel}")
        browser.screen(1400, 1130, "dark")
        show(browser, Path(folder), *SEVERAL)
        browser.run("view.set({ step: arguments[0], layer: 11, head: 5 })", browser.run(PREEMPTED))
        browser.picture(PICTURES / "glass-several.png")


if __name__ == "__main__":
    main()
