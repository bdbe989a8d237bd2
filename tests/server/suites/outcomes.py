"""A pytest plugin that writes how every test ended, one JSON line each; it runs inside another suite's environment, so
it imports nothing of this project. The file is named by the environment variable OUTCOMES."""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    failed_around = report.when != "call" and report.outcome == "failed"
    skipped_before = report.when == "setup" and report.outcome == "skipped"
    if report.when == "call" or failed_around or skipped_before:
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        with open(os.environ["OUTCOMES"], "a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, outcome]) + "\n")
