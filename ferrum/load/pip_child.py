"""pip, run in a process that ends when the process that started it ends.

Owns: that end. Standard input is a pipe to which nothing is written; it is closed when the process at its other end is
gone, however that one ended. Refuses to know: what pip does. This file is run by its path, by a Python that need not
have ferrum, and imports nothing of it.
Specs: LOAD-66, LOAD-68. Next: `ferrum.load.model`.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import threading

NO_PIP = 97
"""The exit code if this Python has no pip."""


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
