"""The name and the features of this processor as LLVM reports them, stored for the next start.

Owns: one small private file beside the kernels. Loading LLVM takes 50 MB of memory and a tenth of the time of a start.
Its answer depends on what the system reports of the processor, so LLVM is asked again only when that changes, or when
the system reports nothing, or the file cannot be stored.
Refuses to know: which instructions kernels use.
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
"""Fields of /proc/cpuinfo that never change for a processor. The clock rate, for example, is not among them."""
FILE = "processor"
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Processor:
    """The name of a processor and the names of its features, both as LLVM spells them."""

    name: str
    features: frozenset[str]


def kernels_folder() -> Path:
    """The folder of the kernel cache and of the file of this module: below NUMBA_CACHE_DIR if that is set. Raises
    ConfigError if there is no cache folder."""
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
    """What the system reports of the processor, with the version of LLVM; empty if it reports nothing."""
    try:
        with SYSTEM_TELLS.open() as file:
            first = file.read(1 << 14).partition("\n\n")[0].splitlines()
    except (OSError, ValueError):
        return b""
    lines = [line for line in first if line.partition(":")[0].strip() in LASTING]
    return "\n".join([llvmlite.__version__, *lines]).encode() if lines else b""


def _remembered(told: bytes) -> Processor | None:
    """The stored answer; None if there is none, if it is damaged or for another processor, or if another user could
    have written it."""
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
    """The file descriptor of the folder, which is made if missing. Raises OSError, ConfigError."""
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
