"""Another process that compiles what will be needed soon.

Owns: compiling on two processors, which Numba cannot do in one process. The other process leaves its object code in the
kernel cache; whoever needs it meanwhile waits for it there. If the process cannot be started, or fails, nothing is lost
but time: what is missing is compiled where it is needed.
Specs: OPS-49, OPS-55. Next: `ferrum.backends.numba_kernels.library`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ferrum.backends.numba_kernels.cache import KernelFiles
from ferrum.children import clean_environment, python_command

LOOK_SECONDS = 0.01
OWN_PLACE = str(Path(__file__).parents[3])


class CompilingProcess:
    """Compiles these functions, in this order, into the kernel cache. Raises OSError or NotFound
    where it cannot be started."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        environment = clean_environment(sys.path)
        # where ferrum itself is comes last, even if that is here: after all that has to be imported
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), OWN_PLACE]))
        command = python_command("-m", __name__, *names)
        # in a session of its own: Ctrl-C is for whoever waits, and the next start is glad of what is finished
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def wait_for(self, name: str, files: KernelFiles) -> bytes | None:
        """What it leaves in the cache under this file name; None if it ends without."""
        while self._process.poll() is None:
            kept = files.read(name)
            if kept is not None:
                return kept
            time.sleep(LOOK_SECONDS)
        return files.read(name)


def main() -> None:
    from ferrum.backends.numba_kernels.library import LIBRARY

    for name in sys.argv[1:]:
        LIBRARY.address(name)


if __name__ == "__main__":
    main()
