"""pip, for as long as somebody waits for what it fetches.

Owns: the end of this process together with the one that started it, however that one ends: its standard input is a pipe
that nobody writes to, and which is closed when the process at the other end is gone.
Refuses to know: what pip does. It is run as a file, by a Python that need not have ferrum, and imports nothing of it.
Specs: LOAD-66, LOAD-68. Next: `ferrum.load.model`.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import threading

NO_PIP = 97
"""Exit code where this Python has no pip."""


def end_with_parent() -> None:
    """Waits for the end of standard input and ends the process at once."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    if importlib.util.find_spec("pip") is None:
        sys.exit(NO_PIP)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
