"""The option `speculate`: where proposed tokens come from and how many a step may have, such as "ngram:7".

Owns: `Speculate` and how it is written. Refuses to know: how drafts are made and judged.
Specs: DRAFT-10. Next: `ferrum.tensor.ops`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import text

NGRAM, DRAFT, OFF = "ngram", "draft", "off"
DEFAULT_DRAFTS = 7
MOST_DRAFTS = 64


@dataclass(frozen=True)
class Speculate:
    """The parsed option."""

    source: str  # NGRAM (the request's own text), DRAFT (a second model) or OFF
    most: int = DEFAULT_DRAFTS  # tokens proposed for a step, at most


def parse_speculate(field: str, value: object) -> Speculate | None:
    """The option of a text; None for None. Raises InvalidParameter that names `field`."""
    if value is None:
        return None
    written = text(value)
    match = re.fullmatch(r"(off)|(ngram|draft)(?::([0-9]{1,9}))?", written or "", re.ASCII)
    if match is None:
        raise InvalidParameter(field, f'must be "ngram", "ngram:N", "draft", "draft:N" or "off", not {quoted(value)}')
    if match[1]:
        return Speculate(OFF, 0)
    most = DEFAULT_DRAFTS if match[3] is None else int(match[3])
    if not 1 <= most <= MOST_DRAFTS:
        raise InvalidParameter(field, f"must propose from 1 to {MOST_DRAFTS} tokens a step, not {most}")
    return Speculate(match[2], most)
