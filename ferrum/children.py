"""Child processes that run Python: pip, and the compiler of kernels.

Owns: command and environment of such a process, chosen so that it imports no module from the working directory: this
may be a downloaded folder, in which a file has the name of any module. Refuses to know: what the processes do.
Specs: LOAD-68. Next: `ferrum.mapping`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ferrum.errors import NotFound


def python_command(*arguments: str) -> list[str]:
    """The command that runs this Python with these arguments, such as "-m" and a module. Raises NotFound if the
    interpreter does not know the path of its own program, as in an application that embeds Python."""
    if not sys.executable:
        raise NotFound("another Python cannot be started: this one does not know where its program is")
    return [sys.executable, "-P", *arguments]  # -P: the working directory is not searched for modules


def clean_environment(search: Iterable[str] | None = None) -> dict[str, str]:
    """The environment of this process, without the working directory in PYTHONPATH. `search`: the folders to put there;
    None: those that are there now."""
    environment = dict(os.environ)
    given = environment.pop("PYTHONPATH", "")
    places = elsewhere(given.split(os.pathsep) if search is None else search)
    if places:
        environment["PYTHONPATH"] = os.pathsep.join(places)
    environment["PYTHONSAFEPATH"] = "1"  # for the processes that the child starts
    return environment


def own_environment() -> dict[str, str]:
    """The environment for a child that runs a module of ferrum: it searches the folders of this process for modules,
    and last the folder of ferrum itself, even if that is the working directory."""
    environment = clean_environment(sys.path)
    searched = [environment.get("PYTHONPATH"), str(Path(__file__).parents[1])]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
    return environment


def elsewhere(search: Iterable[str]) -> list[str]:
    """The folders of a search path that do not depend on the working directory: absolute paths other than its own."""
    return [place for place in search if _is_elsewhere(place)]


def _is_elsewhere(place: object) -> bool:
    if not isinstance(place, str):  # Python ignores other objects in sys.path
        return False
    if not os.path.isabs(place) or os.pathsep in place:  # a separator would split the path in PYTHONPATH
        return False
    try:
        return not os.path.samefile(place, os.curdir)
    except ValueError:  # not a valid file name
        return False
    except OSError:  # one of the two does not exist
        return True
