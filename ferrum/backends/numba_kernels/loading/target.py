"""What LLVM says of the processor at hand, remembered for the next start.

Owns: one small private file beside the kernels. LLVM takes 50 MB of memory and a tenth of a start to load, and says the
same as long as the system tells the same of the processor; so it is asked when that changes. Where nothing can be
remembered, or the system tells nothing, it is asked every time.
Refuses to know: what follows for kernels.
Specs: OPS-48. Next: `ferrum.backends.numba_kernels.loading.features`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite

from ferrum.errors import ConfigError
from ferrum.files import make_private, open_private, read_private, write_private
from ferrum.paths import cache_folder

SYSTEM_TELLS = Path("/proc/cpuinfo")
LASTING = frozenset((
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
))  # fmt: skip
"""What the system tells of a processor that stays as it is: not its clock, for one."""
FILE = "processor"
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Processor:
    """Its name, and the names of its features, in LLVM's words."""

    name: str
    features: frozenset[str]


def kernels_folder() -> Path:
    """Where kernels are kept, and this: below NUMBA_CACHE_DIR if that is set. Raises ConfigError where there is no
    cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(chosen) if chosen else cache_folder()) / "kernels"


@cache
def this_processor() -> Processor:
    """The processor that this process runs on."""
    told = _told_by_system()
    known = _remembered(told) if told else None
    if known is not None:
        return known
    found = _asked()
    if told:
        _remember(told, found)
    return found


def _asked() -> Processor:
    import llvmlite.binding as llvm

    features = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    return Processor(llvm.get_host_cpu_name(), features)


def _told_by_system() -> bytes:
    """What LLVM's answer depends on; nothing where the system does not tell."""
    try:
        with SYSTEM_TELLS.open() as file:
            first = file.read(1 << 14).partition("\n\n")[0].splitlines()
    except (OSError, ValueError):
        return b""
    lines = [line for line in first if line.partition(":")[0].strip() in LASTING]
    return "\n".join([llvmlite.__version__, *lines]).encode() if lines else b""


def _remembered(told: bytes) -> Processor | None:
    """None where nothing is, or it is about another processor, damaged, or could be somebody else's."""
    try:
        with _folder() as folder:
            kept = read_private(FILE, folder)
    except (OSError, ConfigError):
        return None
    digest, content = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    if digest != hashlib.sha256(told + b"\0" + content).digest():
        return None
    name, *features = content.decode().split("\n")
    return Processor(name, frozenset(features))


def _remember(told: bytes, found: Processor) -> None:
    content = "\n".join([found.name, *sorted(found.features)]).encode()
    with suppress(OSError, ConfigError), _folder() as folder:
        write_private(FILE, folder, hashlib.sha256(told + b"\0" + content).digest() + content)


@contextmanager
def _folder() -> Iterator[int]:
    """The descriptor of the folder, made if need be. Raises OSError, ConfigError."""
    folder = kernels_folder()
    make_private(folder.parent)
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        within = open_private(folder.name, above, make=True)
    finally:
        os.close(above)
    try:
        yield within
    finally:
        os.close(within)
