"""Files that others may have a hand in: read with care, written whole or not at all.

Owns: what may be read (a regular file of a plausible size, opened without waiting), files that appear under their name
with all of their content, and folders that nobody else can write to. What a killed process leaves behind is known by
its name and by a lock that only a living process holds, so that nothing else is ever removed.
Refuses to know: what is in a file.
Specs: FILES. Next: `ferrum.children`.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ferrum.errors import InvalidFormat, NotFound

UNFINISHED = re.compile(r"\.ferrum-[0-9a-f]{16}\.part")
"""Names of files that are being written."""
PIECE = 1 << 20
"""Bytes that are read at a time."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


# ---- reading
def open_regular(path: str | Path, most: int | None = None) -> BinaryIO:
    """Opens a regular file of at most `most` bytes for reading. Raises NotFound for one that does not exist,
    InvalidFormat for what is no regular file (a pipe would be waited for, a device has no end), is larger or cannot be
    opened."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from None
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or (most is not None and status.st_size > most):
        os.close(number)
        what = f"is larger than {most} bytes" if stat.S_ISREG(status.st_mode) else "is not a regular file"
        raise InvalidFormat(f"{path} {what}")
    return open(number, "rb")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises as `open_regular`."""
    content = bytearray()
    with open_regular(path, most) as file:
        try:
            while (piece := file.read(PIECE)) and len(content) <= most:
                content += piece
        except OSError as error:
            raise InvalidFormat(f"{path} cannot be read: {reason(error)}") from None
    if len(content) > most:  # it has grown, or does not tell its size
        raise InvalidFormat(f"{path} is larger than {most} bytes")
    return bytes(content)


def read_text(path: str | Path, most: int) -> str:
    """The same as text. Raises InvalidFormat for what is not UTF-8, too."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFormat(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def reason(error: Exception) -> str:
    """Why a file operation failed, without the name of the file."""
    return getattr(error, "strerror", None) or str(error)


# ---- writing
@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends, with its content on the disk before it
    has the name; if the block raises, nothing has changed. A link stays, and the file it leads to is replaced; an older
    file's mode is kept. Raises OSError; FileExistsError where something else than a regular file has the name."""
    target = Path(os.path.realpath(path))
    older = target.stat() if os.path.lexists(target) else None
    if older is not None and not stat.S_ISREG(older.st_mode):
        raise FileExistsError(f"{path} is not a regular file")
    if older is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} may not be written to")
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_unfinished(folder)
        with _taking_the_place(target.name, folder, 0o666) as file:
            if older is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(older.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.close(folder)


def write_private(name: str, folder: int, content: bytes) -> None:
    """Writes a file for `read_private`, over whatever file or link has the name. Not on the disk at once: who reads it
    must be able to tell whether it is whole. Raises OSError."""
    with _taking_the_place(name, folder, 0o600) as file:
        file.write(content)


@contextmanager
def _taking_the_place(name: str, folder: int, mode: int) -> Iterator[BinaryIO]:
    """A new file in a folder that gets the name when the block ends, or is removed if it raises."""
    unfinished, file = _unfinished(folder, mode)
    try:
        with file:
            yield file
            file.flush()
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise


def remove_unfinished(folder: int) -> None:
    """Removes what killed processes have left unfinished in a folder: files with our names that nobody holds."""
    with suppress(OSError):
        for name in filter(UNFINISHED.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                number = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                    os.unlink(name, dir_fd=folder)
                finally:
                    os.close(number)


def _unfinished(folder: int, mode: int) -> tuple[str, BinaryIO]:
    """A new locked file in a folder, and its name."""
    while True:
        name = f".ferrum-{os.urandom(8).hex()}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = open(os.open(name, flags, mode, dir_fd=folder), "wb")  # noqa: SIM115 (the caller closes it)
        with suppress(OSError):  # a file system without locks: then nobody can lock it to remove it either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return name, file
        file.close()  # another process took it for one that was left, before it was locked


# ---- folders that nobody else can write to
def make_private(path: Path) -> None:
    """Makes a folder, and those above it that are missing, for this user alone. Raises OSError."""
    if not path.is_dir():
        if path.parent != path:
            make_private(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)


def open_private(name: str, within: int, *, make: bool = False) -> int:
    """The descriptor of the folder `name` in the folder `within`, made if it is missing and `make` says so. Raises
    OSError: PermissionError where it is a link, belongs to somebody else or others can write to it."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=within)
    status = os.stat(name, dir_fd=within, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{name} is a link")
    number = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        require_private(name, os.fstat(number))
    except PermissionError:
        os.close(number)
        raise
    return number


def read_private(name: str, folder: int) -> bytes:
    """The content of a file that nobody else could have written. Raises OSError."""
    number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{name} is not a regular file")
        require_private(name, status)
        return file.read()


def require_private(name: str, status: os.stat_result) -> None:
    """Raises PermissionError where a file or folder belongs to somebody else than the user or root, or others can write
    to it."""
    if status.st_uid not in (os.geteuid(), 0):  # root can do everything anyway
        raise PermissionError(f"{name} belongs to another user")
    if status.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"others can write to {name}: remove it, or chmod go-w")
