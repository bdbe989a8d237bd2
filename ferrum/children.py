"""Other processes that run Python: pip, and the compiler of kernels.

Owns: how such a process is started, so that nothing of the working directory becomes part of it. People start programs
in folders that they have downloaded, and a file there may have the name of any module.
Refuses to know: what the processes do.
Specs: LOAD-68. Next: `ferrum.mapping`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ferrum.errors import NotFound


def python_command(*arguments: str) -> list[str]:
    """The command that runs this Python with these arguments, such as "-m" and a module. Raises NotFound where the
    interpreter does not know its own program, as in an application that embeds it."""
    if not sys.executable:
        raise NotFound("another Python cannot be started: this one does not know where its program is")
    return [sys.executable, "-P", *arguments]  # -P: the working directory is not searched for modules


def clean_environment(search: Iterable[str] | None = None) -> dict[str, str]:
    """The environment for it: this one, with nothing of the working directory among the places that are searched for
    modules. `search`: these places; None means those of PYTHONPATH."""
    environment = dict(os.environ)
    given = environment.pop("PYTHONPATH", "")
    places = elsewhere(given.split(os.pathsep) if search is None else search)
    if places:
        environment["PYTHONPATH"] = os.pathsep.join(places)
    environment["PYTHONSAFEPATH"] = "1"  # for the processes that it starts in turn
    return environment


def own_environment() -> dict[str, str]:
    """The same for a process that runs a module of ferrum: it searches where this one does, and in the end where ferrum
    itself is, even if that is the working directory; all else has been found by then."""
    environment = clean_environment(sys.path)
    searched = [environment.get("PYTHONPATH"), str(Path(__file__).parents[1])]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
    return environment


def elsewhere(search: Iterable[str]) -> list[str]:
    """Those of some places to search for modules that do not depend on the working directory: absolute paths, other
    than its own."""
    return [place for place in search if _is_elsewhere(place)]


def _is_elsewhere(place: object) -> bool:
    if not isinstance(place, str):  # Python passes over what else people put into sys.path
        return False
    if not os.path.isabs(place) or os.pathsep in place:  # in PYTHONPATH the separator would make two places of one
        return False
    try:
        return not os.path.samefile(place, os.curdir)
    except ValueError:  # no name that a file can have
        return False
    except OSError:  # one of the two does not exist
        return True
