"""Properties that a backend's author knows to fail: `--xfails-file`.

Owns: the form of the file. One property per line, as in the report, `test_activations[relu]`, or as in pytest,
`test_parts.py::test_activations[numpy-relu]`; `*` matches anything; `#` starts a comment, which is the reason. The file
is strict: a listed property that passes fails the run, and a line that matches no property is an error. Refuses to
know: pytest.
Specs: CONFORM-06. Next: `ferrum.conformance.named`.
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
        """True if the line matches a property with one of these names."""
        plain = self.pattern.removesuffix("[*]")  # matches any parameters, also none
        expression = "|".join(re.escape(each).replace(r"\*", ".*") for each in (self.pattern, plain))
        return any(re.fullmatch(expression, name) for name in names)


def read_xfails(path: Path) -> list[Known]:
    """Raises ConfigError for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--xfails-file {path} cannot be read: {error}") from None
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern, _, reason = (part.strip() for part in line.partition("#"))
        if pattern:
            entries.append(Known(number, pattern.rpartition("::")[2], reason or "known to be broken"))
    return entries


def check_all_match(path: Path, entries: Iterable[Known], names: Iterable[str]) -> None:
    """names: those of all properties. Raises ConfigError for the first line that matches no property."""
    all_names = set(names)
    for entry in entries:
        if not any(entry.matches(name) for name in all_names):
            raise ConfigError(f"{path}:{entry.line}: no property is called {entry.pattern!r}")
