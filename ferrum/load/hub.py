"""Models of the Hugging Face hub, in the hub's own cache.

Owns: what is fetched of a repository, and the comparison of its files with the digests that the hub's cache keeps.
HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply. Refuses to know: what is in the files.
Specs: LOAD-73, LOAD-74, LOAD-78. Next: `ferrum.load.download`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidFormat, NotFound
from ferrum.files import open_regular

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""What is downloaded of a repository on the hub: never pickled weights, never code."""


@dataclass(frozen=True)
class HubModel:
    """A repository on the hub."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class CachedRepository:
    """What the hub's cache holds of a repository."""

    repo: str
    path: Path
    nbytes: int


def fetch_snapshot(model: HubModel, *, offline: bool, quiet: bool) -> Path:
    """The folder with the files of a repository, fetched if need be and allowed. Raises `NotFound`."""
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    folder = _ask_hub(
        "snapshot_download",
        model,
        offline,
        quiet,
        revision=model.revision,
        allow_patterns=HUB_PATTERNS,
        ignore_patterns=["*/*"],  # other formats of the same weights
        local_files_only=offline,
    )
    return Path(folder)


def verify_snapshot(
    model: HubModel, folder: Path, *, offline: bool, quiet: bool, notice: Callable[[str], None]
) -> None:
    """Reads every file of a snapshot and compares it with its digest; damaged ones are fetched again, of which `notice`
    hears. Raises `InvalidFormat` where one is damaged and stays so, `NotFound` where there is no digest."""
    damaged = _damaged_files(folder)
    if not damaged:
        return
    if offline:
        raise InvalidFormat(f"{damaged[0]} is damaged; without --offline it is fetched again")
    for path in damaged:
        notice(f"{path} is damaged; it is fetched again")
        # a snapshot is called after its revision
        _ask_hub(
            "hf_hub_download", model, offline, quiet, filename=path.name, revision=folder.name, force_download=True
        )
    damaged = _damaged_files(folder)
    if damaged:
        raise InvalidFormat(f"{damaged[0]} was fetched again and is damaged still")


def _ask_hub(function: str, model: HubModel, offline: bool, quiet: bool, **arguments: Any) -> str:
    """Calls a function of the hub's library; whatever it raises becomes `NotFound` of one line."""
    try:
        import huggingface_hub
    except ImportError:
        raise NotFound(f"{model.repo} is on the Hugging Face hub; to fetch it, `pip install huggingface_hub`") from None
    try:
        with _silenced_hub() if quiet else nullcontext():
            return str(getattr(huggingface_hub, function)(model.repo, **arguments))
    except Exception as error:  # network, login and lookup errors share no base class
        raise NotFound(
            f"{model.repo} cannot be fetched from the Hugging Face hub: {_reason(error, offline)}"
        ) from error


@contextmanager
def _silenced_hub() -> Iterator[None]:
    """Without the hub's progress bars, which it draws on a terminal or not."""
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():  # type: ignore[attr-defined]
        yield
        return
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils.enable_progress_bars()  # type: ignore[attr-defined]


def _reason(error: Exception, offline: bool) -> str:
    if offline:
        return "it is not complete in the local cache, and offline mode is on"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _damaged_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.is_dir() and not _is_whole(path, _published(path))]


def _published(path: Path) -> str:
    """The digest of a file, after which the hub's cache calls the file that the snapshot's link leads to: SHA-256 of
    large files, and of others the SHA-1 that Git has for them."""
    blob = os.path.basename(os.path.realpath(path))
    if not path.is_symlink() or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob):
        raise NotFound(f"{path} cannot be verified: the hub's cache keeps no digest of it")
    return blob


def _is_whole(path: Path, published: str) -> bool:
    """Has a file the content that its digest says? All of it is read."""
    import hashlib  # and with it OpenSSL: not at every start

    try:
        with open_regular(path) as file:
            header = f"blob {os.fstat(file.fileno()).st_size}\0".encode()
            kind = hashlib.sha256 if len(published) == 64 else lambda: hashlib.sha1(header, usedforsecurity=False)
            return hashlib.file_digest(file, kind).hexdigest() == published  # type: ignore[arg-type]  # it has readinto
    except (OSError, NotFound, InvalidFormat):  # a disk that cannot be read, a link that leads nowhere
        return False


def cached_repositories() -> list[CachedRepository]:
    """What the hub's cache holds, by name. Asks no network."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, ValueError, OSError):  # ValueError: it is no folder
        return []
    found = [CachedRepository(str(repo.repo_id), Path(repo.repo_path), repo.size_on_disk) for repo in repos]
    return sorted(found, key=lambda cached: cached.repo)
