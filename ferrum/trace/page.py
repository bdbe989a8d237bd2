"""The page that plays a trace: one file of HTML that loads nothing and runs only its own script.

Owns: how the frame, the style, the scripts of `ferrum/trace/assets` and the data become one text; escaping, so that no
text of a model or a user can end the data or begin a script; the Content-Security-Policy of a page that is one file.
Refuses to know: what the data says (`docs/trace-format.md`), HTTP.
Specs: GLASS-01, GLASS-02. Source: W3C, "Content Security Policy Level 3"; HTML standard, "Restrictions for contents of
script elements". Next: `ferrum.server.settings`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "dom.js", "trace.js", "view.js", "text_panel.js", "memory_panel.js", "attention_panel.js", "distribution_panel.js",
    "launches_panel.js", "log_panel.js", "player.js", "live.js", "main.js",
)  # fmt: skip
"""In the order in which they run: a script uses what stands before it."""
_MARK = re.compile(r"<!--POLICY-->|/\*(?:STYLE|SCRIPT|TRACE)\*/")


def page(trace: Mapping[str, Any]) -> str:
    """A trace as a file of HTML, to be opened without a server."""
    html = assembled(trace)
    rules = policy(html)
    del rules["frame-ancestors"]  # means nothing in a file, and browsers warn of it
    return html.replace("<!--POLICY-->", f'<meta http-equiv="content-security-policy" content="{joined(rules)}">', 1)


def assembled(trace: Mapping[str, Any]) -> str:
    """The page without a policy: a server sends that as a header."""
    parts = {
        "/*STYLE*/": _asset("page.css"),
        "/*SCRIPT*/": "".join(_asset(name) for name in SCRIPTS),
        "/*TRACE*/": embedded(trace),
    }
    # in one pass, so that a mark inside of the data is data
    return _MARK.sub(lambda mark: parts.get(mark[0], mark[0]), _asset("page.html"))


def embedded(value: object) -> str:
    """JSON that can stand in a script element of HTML: ASCII, and without `<`, `>` and `&`. It means the same: these
    characters occur only in texts, where JSON has escapes for them. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def policy(html: str) -> dict[str, str]:
    """What a browser lets a page do: run the scripts and styles that stand in it, and nothing else."""
    return {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def joined(rules: Mapping[str, str]) -> str:
    """Rules as a header has them."""
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes(html: str, tag: str) -> str:
    """The hash of each style or script. A script with a type is data, and is never run."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def _asset(name: str) -> str:
    return (files("ferrum.trace") / "assets" / name).read_text(encoding="utf-8")
