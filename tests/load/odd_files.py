"""Paths that are not regular files: pipes, devices, sockets, links."""

from __future__ import annotations

import os
import socket
from pathlib import Path

ODD_KINDS = ["pipe", "socket", "device", "directory", "dangling", "circular"]


def make_odd(path: Path, kind: str) -> None:
    """Makes a path that is not a regular file."""
    if os.path.lexists(path):
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path may have a hundred characters only
            try:
                server.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "dangling": "nowhere", "circular": path.name}[kind])
