"""Models of the Hugging Face hub, in the hub's own cache.

Owns: which files of a repository are downloaded, and the comparison with the digests in the hub's cache. HF_HOME,
HF_TOKEN and HF_HUB_OFFLINE apply. Refuses to know: what is in the files.
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

from ferrum.errors import FerrumError, InvalidFormat, NotFound
from ferrum.fields import read_json
from ferrum.files import open_regular

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
HUB_PATTERNS = ["*.json", "model.safetensors", "model-*.safetensors", "*.jinja", "tokenizer*"]
"""The files of a repository that are downloaded: no pickled weights, no code, and the weights in one format only, of
several that a repository may have."""
_FOLDERS = ["*/*.safetensors", "*/*.json", "*/tokenizer*"]
"""Files in subfolders that are not downloaded: they belong to other formats. Templates in subfolders are downloaded."""
_REPOSITORY = "models--"
"""The beginning of the name of a model's folder in the hub's cache."""


@dataclass(frozen=True)
class HubModel:
    """A repository on the hub."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class CachedRepository:
    """A repository in the hub's cache."""

    repo: str
    path: Path
    nbytes: int


def fetch_snapshot(model: HubModel, *, offline: bool, quiet: bool) -> Path:
    """The folder with the files of a repository, downloaded if it is not here and downloading is allowed. Raises
    `NotFound`."""
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")

    def fetch(patterns: list[str]) -> Path:
        folder = _ask_hub(
            "snapshot_download",
            model,
            offline,
            quiet,
            revision=model.revision,
            allow_patterns=patterns,
            ignore_patterns=_FOLDERS,
            local_files_only=offline,
        )
        return Path(folder)

    folder = fetch(HUB_PATTERNS)
    shards = [] if offline else _shards_elsewhere(folder)
    return fetch(shards) if shards else folder


def _shards_elsewhere(folder: Path) -> list[str]:
    """Shards that an index names and whose names match no pattern."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if os.path.lexists(single) or not os.path.lexists(index):
        return []
    try:
        places = read_json(index).inner("weight_map").values.values()
    except FerrumError:  # opening the model raises it again, with a message
        return []
    names = {name for name in places if isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name)}
    return sorted(name for name in names if not os.path.lexists(folder / name))


def verify_snapshot(
    model: HubModel, folder: Path, *, offline: bool, quiet: bool, notice: Callable[[str], None]
) -> None:
    """Reads every file of a snapshot and compares it with its digest. Damaged files are downloaded again, and `notice`
    is told. Raises `InvalidFormat` if a file stays damaged, `NotFound` if there is no digest."""
    damaged = _damaged_files(folder)
    if not damaged:
        return
    if offline:
        raise InvalidFormat(f"{damaged[0]} is damaged; without --offline it is fetched again")
    for path in damaged:
        notice(f"{path} is damaged; it is fetched again")
        # the folder of a snapshot has the name of its revision
        _ask_hub(
            "hf_hub_download", model, offline, quiet, filename=path.name, revision=folder.name, force_download=True
        )
    damaged = _damaged_files(folder)
    if damaged:
        raise InvalidFormat(f"{damaged[0]} was fetched again and is damaged still")


def _ask_hub(function: str, model: HubModel, offline: bool, quiet: bool, **arguments: Any) -> str:
    """Calls a function of the hub's library; every exception becomes a `NotFound` of one line."""
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
    """Hides the hub's progress bars, which it draws also where there is no terminal."""
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
    """The digest of a file. The hub's cache uses it as the name of the file to which the snapshot links: SHA-256 for
    large files, Git's SHA-1 for others."""
    blob = os.path.basename(os.path.realpath(path))
    if not path.is_symlink() or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob):
        raise NotFound(f"{path} cannot be verified: the hub's cache keeps no digest of it")
    return blob


def _is_whole(path: Path, published: str) -> bool:
    """True if the file has the content of its digest. Reads all of it."""
    import hashlib  # loads OpenSSL, which not every start needs

    try:
        with open_regular(path) as file:
            header = f"blob {os.fstat(file.fileno()).st_size}\0".encode()
            kind = hashlib.sha256 if len(published) == 64 else lambda: hashlib.sha1(header, usedforsecurity=False)
            return hashlib.file_digest(file, kind).hexdigest() == published  # type: ignore[arg-type]  # it has readinto
    except (OSError, NotFound, InvalidFormat):  # a disk error, a broken link
        return False


def cached_repositories() -> list[CachedRepository]:
    """The models in the hub's cache by name: every repository with a snapshot, complete or not. Uses no network."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return []
    repositories = []
    try:
        folders = sorted(Path(HF_HUB_CACHE).glob(f"{_REPOSITORY}*/snapshots"))
        for folder in folders:
            if any(folder.iterdir()):
                name = folder.parent.name.removeprefix(_REPOSITORY).replace("--", "/")
                repositories.append(CachedRepository(name, folder.parent, _size_on_disk(folder.parent)))
    except OSError:  # no folder, or no permission
        pass
    return repositories


def _size_on_disk(folder: Path) -> int:
    """Bytes of the files below a folder, each counted once: snapshots are links to them."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
