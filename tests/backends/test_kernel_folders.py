"""The folders of `numba_kernels`: no compiler in `launching` and `loading`, every kernel in `compiled`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum.backends import numba_kernels
from tests.house.source import Module, imports, modules

PACKAGE = numba_kernels.__name__
FIRST_USED = {f"{PACKAGE}.loading.library": f"{PACKAGE}.compiled.compiler"}
"""The one exception: an import inside of a function, which runs if a kernel must be compiled."""


def folder_of(name: str) -> str:
    """The folder "compiled", "launching" or "loading"; "" for all other modules."""
    return name.removeprefix(f"{PACKAGE}.").split(".")[0] if name.startswith(f"{PACKAGE}.") else ""


def ours(folder: str) -> list[Module]:
    return [module for module in modules() if folder_of(module.name) == folder]


def external(tree: ast.Module) -> set[str]:
    """The packages that a module imports, at import or later."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


OUTSIDE = [module for module in modules() if module.room == "backends" and folder_of(module.name) != "compiled"]


@pytest.mark.clause("OPS-48")
@pytest.mark.parametrize("module", ours("launching") + ours("loading"), ids=str)
def test_what_launches_and_loads_needs_no_compiler(module: Module) -> None:
    assert "numba" not in external(module.tree)
    into = {name for _, name in imports(module) if folder_of(name) == "compiled"}
    assert into <= {FIRST_USED.get(module.name)}
    at_import = {name for _, name in imports(module, ast.Module(_outside_functions(module.tree), []))}
    assert not {name for name in at_import if folder_of(name) == "compiled"}


def _outside_functions(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]


@pytest.mark.clause("OPS-48")
@pytest.mark.parametrize("module", ours("compiled"), ids=str)
def test_what_is_compiled_knows_no_launches(module: Module) -> None:
    assert "launching" not in {folder_of(name) for _, name in imports(module)}


@pytest.mark.clause("OPS-48")
@pytest.mark.parametrize("module", OUTSIDE, ids=str)
def test_every_kernel_is_in_compiled(module: Module) -> None:
    assert "numba" not in external(module.tree)
    assert not any(folder_of(name) == "compiled" for _, name in imports(module)) or module.name in FIRST_USED


@pytest.mark.clause("OPS-48")
def test_importing_all_that_launches_loads_no_compiler() -> None:
    names = [module.name for module in ours("launching") + ours("loading")]
    program = f"import sys, {', '.join(names)}\nprint(*({{'numba', 'llvmlite.binding'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=True)
    assert ran.stdout.split() == []
