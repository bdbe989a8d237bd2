"""The page at `/`: one file, and a content security policy that lets no other script run in it.

Owns: its headers. The policy names the hashes of the page's own script and style, so that text of a model could not
run even if it came to stand in the page as HTML. Refuses to know: what the page does. Specs: SERVER-35. Source: W3C,
"Content Security Policy Level 3". Next: `ferrum.server.glass`.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.responses import HTMLResponse, Response

from ferrum.trace.page import joined, policy


def page() -> Response:
    """The page as it is sent."""
    html = files("ferrum.server").joinpath("page.html").read_text(encoding="utf-8")
    rules = joined({**policy(html), "connect-src": "'self'", "img-src": "'self' data:"})
    headers = {"content-security-policy": rules, "referrer-policy": "no-referrer", "cache-control": "no-cache"}
    return HTMLResponse(html, headers=headers)
