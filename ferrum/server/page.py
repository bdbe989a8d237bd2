"""The page at `/`: one file, and a policy under which nothing else can run in it.

Owns: its headers. The policy names the hashes of the page's own script and style, so that text of a model could not
run even if it came to stand in the page as HTML. Refuses to know: what the page does. Specs: SERVER-35. Source: W3C,
"Content Security Policy Level 3". Next: `ferrum.server.metrics`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from starlette.responses import HTMLResponse, Response


def page() -> Response:
    """The page as it is sent."""
    html = files("ferrum.server").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": policy(html), "referrer-policy": "no-referrer", "cache-control": "no-cache"}
    return HTMLResponse(html, headers=headers)


def policy(html: str) -> str:
    """What the browser lets the page do: run what stands in it, talk to this server, show pictures made by itself."""
    rules = {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes(html: str, tag: str) -> str:
    inside = re.findall(rf"<{tag}(?:\s[^>]*)?>(.*?)</{tag}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inside)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
