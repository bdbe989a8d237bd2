"""What a backend's author knows to be broken: `--xfails-file`.

Owns: the file's form. One property a line, as the report spells it, `test_activations[relu]`, or as pytest does,
`test_parts.py::test_activations[numpy-relu]`; `*` stands for anything; `#` starts a comment, which is the reason. It is
strict: a property that is listed and passes fails the run, and a line
that no property matches is an error.
Refuses to know: pytest. Specs: CONFORM-06. Next: `ferrum.conformance.named`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ferrum.errors import ConfigError


@dataclass(frozen=True)
class Known:
    """One line of the file; `pattern` is without the path that pytest puts before a name."""

    line: int
    pattern: str
    reason: str

    def matches(self, *names: str) -> bool:
        """Is a property meant that has these names?"""
        plain = self.pattern.removesuffix("[*]")  # any parameters, and none
        expression = "|".join(re.escape(each).replace(r"\*", ".*") for each in (self.pattern, plain))
        return any(re.fullmatch(expression, name) for name in names)


def read_xfails(path: Path) -> list[Known]:
    """Raises ConfigError for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--xfails-file {path} cannot be read: {error}") from None
    known = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern, _, reason = (part.strip() for part in line.partition("#"))
        if pattern:
            known.append(Known(number, pattern.rpartition("::")[2], reason or "known to be broken"))
    return known


def check_all_match(path: Path, known: Iterable[Known], names: Iterable[str]) -> None:
    """names: all that any property has. Raises ConfigError for the first line that names no property."""
    every = set(names)
    for one in known:
        if not any(one.matches(name) for name in every):
            raise ConfigError(f"{path}:{one.line}: no property is called {one.pattern!r}")
