"""A second process that compiles functions which will be needed soon.

Owns: compiling on two processors, which Numba cannot do in one process. The second process writes object code into the
kernel cache, and the first process waits for it there. If the second process cannot be started or fails, the first
process compiles the functions itself.
Specs: OPS-49, OPS-55. Next: `ferrum.backends.numba_kernels.loading.library`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from ferrum.backends.numba_kernels.loading.cache import KernelFiles
from ferrum.children import own_environment, python_command

LOOK_SECONDS = 0.01


class CompilingProcess:
    """Compiles these functions, in this order, into the kernel cache. Raises OSError or NotFound if it cannot be
    started."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        command = python_command("-m", __name__, *names)
        # a session of its own: Ctrl-C ends the process that waits, while this one goes on to fill the cache
        self._process = subprocess.Popen(
            command, env=own_environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait_for(self, name: str, files: KernelFiles) -> bytes | None:
        """The content of this file of the cache, once the process has written it; None if the process ends without
        it."""
        while self._process.poll() is None:
            kept = files.read(name)
            if kept is not None:
                return kept
            time.sleep(LOOK_SECONDS)
        return files.read(name)


def main() -> None:
    from ferrum.backends.numba_kernels.loading.library import LIBRARY

    for name in sys.argv[1:]:
        LIBRARY.address(name)


if __name__ == "__main__":
    main()
