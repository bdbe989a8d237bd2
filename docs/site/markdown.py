"""Changes of a page's text that leave its blocks of code alone."""

from __future__ import annotations

import re
from collections.abc import Callable

FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]*`")


def outside_blocks(text: str, change: Callable[[str], str]) -> str:
    """The text, changed wherever it is no block of code."""
    return _outside(FENCE, text, change)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text, changed wherever it is neither a block of code nor between backticks."""
    return outside_blocks(text, lambda part: _outside(SPAN, part, change))


def _outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for found in pattern.finditer(text):
        parts += [change(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*parts, change(text[end:])])
