"""The error for a structure that cannot be used, and the form of its message.

Owns: the one exception, which becomes an InvalidParameter where a request is made, and the wording of the library's
messages. Refuses to know: which kinds of structures there are.
Specs: SAMPLE-29. Next: `ferrum.sample.grammars.rules`.
"""

from __future__ import annotations

import re

_REASON = 300
_WORDS = (
    (r"NoExtensionBias", "no text fits"),
    (r"Unsatisfiable schema: ", "it allows nothing: "),
    (r"min/maxProperties only supported .*",
     "minProperties and maxProperties can be followed only where each key of 'properties' is 'required'"),
    (r"circular references with sibling keys .*",
     "a '$ref' beside other keywords leads back to itself, which cannot be followed"),
    (r"patternProperty regexes (.*) are not disjoint",
     r"two of 'patternProperties' may match the same key, which cannot be followed: \1"),
    (r"Failed to generate regex for \w+ range: (.*)", r"bounds of numbers that cannot be followed: \1"),
    (r"^regex parse error", "no regular expression that can be followed"),
    (r"maximum recursion depth exceeded.*", "its parts stand too deep in one another"),
    (r"Schema intersection stack level exceeded", "its parts, all of which have to fit, lead back to themselves"),
    (r"(?: while processing)? json-schema:///\S*", ""),
)  # fmt: skip
"""Messages of the library (as patterns), and the words that replace them."""


class CannotFollow(Exception):
    """A structure that makes no sense, or at which the library for grammars fails; the message is one line."""


def in_short(text: str) -> str:
    """A message of the library on one short line."""
    line = " ".join(text.replace("<non-verbose/>", "").split())
    for pattern, words in _WORDS:
        line = re.sub(pattern, words, line)
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line[: _REASON + 1])
    return shown if len(shown) <= _REASON else shown[: _REASON - 3] + "..."
