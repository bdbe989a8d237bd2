"""The project's own files for the house tests: paths, syntax trees, rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RANKS = {
    "core": 0,  # the modules of CORE, which are one room
    "tensor": 1,
    "backends": 2, "model": 2, "kv": 2, "sample": 2, "text": 2, "replies": 2,
    "load": 3, "sched": 3,
    "engine": 4,
    "ferrum": 5,  # the package itself: `from ferrum import LLM`
    "api": 6, "trace": 6,
    "server": 7, "load_test": 7,
    "batch": 8,  # reads JSON as the server does
    "cli": 9,
}  # fmt: skip
CORE = {
    "errors",
    "files",
    "mapping",
    "children",
    "paths",
    "fields",
    "given",
    "speculation",
    "config",
    "sampling_params",
    "parameter",
    "types",
}
EXEMPT = {"conformance", "testing"}


@dataclass(frozen=True)
class Module:
    """One Python file of the package."""

    name: str  # "ferrum.kv.pool"
    path: Path

    @property
    def room(self) -> str:
        """The part after `ferrum`; the rank-0 files are one room, `core`, and `__main__` belongs to the outside."""
        return room_of(self.name)

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return parse(self.path)

    def __str__(self) -> str:
        return self.name


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(name: str) -> str:
    parts = name.split(".")
    if len(parts) == 1:
        return "ferrum"
    return "core" if parts[1] in CORE else {"__main__": "cli"}.get(parts[1], parts[1])


def modules() -> list[Module]:
    """Every module of the package, in path order."""
    found = []
    for path in sorted((ROOT / "ferrum").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(module: Module, tree: ast.Module | None = None) -> Iterator[tuple[int, str]]:
    """(line, imported name) of every import of this project, also of imports inside functions. A `from` import of a
    submodule yields the submodule, because the module depends on it."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(tree or module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if _ours(base):
                yield from ((node.lineno, _target(base, alias.name)) for alias in node.names)


def _ours(name: str) -> bool:
    return name == "ferrum" or name.startswith("ferrum.")


def _target(base: str, name: str) -> str:
    path = ROOT.joinpath(*base.split("."), name)
    return f"{base}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else base
