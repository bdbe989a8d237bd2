"""Editing, completion and history of lines on a terminal, by the standard library's `readline`.

Owns: the history file. Without `readline`, which not every platform has, and with a history that cannot be read or
written, lines are typed all the same. Refuses to know: what is typed.
Specs: CLI-71. Next: `ferrum.cli.trace`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ferrum.errors import ConfigError
from ferrum.files import make_private, require_private
from ferrum.paths import cache_folder

HISTORY_LINES = 1000


@contextmanager
def line_editing(completions: Callable[[str], list[str]]) -> Iterator[None]:
    """While the block runs, `input` edits lines, completes them by Tab and remembers them. `completions`: what the
    last word of a line may become."""
    try:
        import readline
    except ImportError:
        yield
        return

    def complete(_word: str, number: int) -> str | None:
        found = completions(readline.get_line_buffer()[: readline.get_endidx()])
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    # the same wish, in the words of each of the two libraries that Python calls readline
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    readline.set_history_length(HISTORY_LINES)
    path = history_file()
    if path is not None:
        with suppress(OSError):
            readline.read_history_file(path)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                readline.write_history_file(path)


def history_file() -> Path | None:
    """Where lines are remembered; None where there is no place, or where others could read a line, or have a link
    there that leads elsewhere."""
    try:
        path = cache_folder() / "chat_history"
        make_private(path.parent)
        require_private(str(path.parent), os.stat(path.parent))
        if os.path.lexists(path):
            status = os.lstat(path)
            require_private(str(path), status)
            return path if stat.S_ISREG(status.st_mode) else None
        return path
    except (ConfigError, OSError):
        return None
