"""OPS-44 and OPS-48: compiled kernels are cached in files, and later processes load them."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from ferrum.backends.numba_kernels.compiled import compiler
from ferrum.backends.numba_kernels.loading import cache
from ferrum.backends.numba_kernels.loading.cache import MARK, KernelFiles, kernel_cache, kernel_files, kernel_sources
from ferrum.backends.numba_kernels.loading.compiling_process import CompilingProcess
from ferrum.backends.numba_kernels.loading.library import Library
from tests.house.source import ROOT, parse

ONE_KERNEL = """
import sys, numpy as np
from ferrum.backends.numpy_backend import NumbaOps
ops, announced = NumbaOps(1), []
ops.on_compile(announced.append)
sums = [ops.activated(np.ones((1, 32), np.float32), "relu").sum() for _ in range(2)]
print(*sums, announced, "numba" in sys.modules)
"""
PLACED = sys.platform == "linux" and platform.machine() == "x86_64"
"""True if object code of this machine can be run without LLVM."""
KEPT = "kept for the next start"
COMPILED, LOADED = f"32.0 32.0 ['relu, {KEPT}', 'activate, {KEPT}'] True\n", "32.0 32.0 [] False\n"

GENERATE = """
import sys
from ferrum import LLM, SamplingParams
from ferrum.backends.registry import load_backend
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params
config = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)
ops = load_backend("auto", threads=2)
llm = LLM.from_loaded(TinyModel(config, tiny_params(config), ByteTokenizer()), ops)
(answer,) = llm.generate([list(range(1, 40))], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
unneeded = ("numba", "llvmlite.binding", "importlib.metadata")
print(ops.name, answer.token_ids, *(name in sys.modules for name in unneeded))
"""


def run(program: str, folder: Path | None = None, **variables: str) -> str:
    """The output of a new process whose kernel cache is in this folder."""
    chosen = {} if folder is None else {"FERRUM_CACHE": str(folder)}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **chosen, **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.clause("OPS-48")
def test_a_warm_start_imports_no_numba_and_loads_no_llvm() -> None:
    first, second = run(GENERATE), run(GENERATE)
    assert second.split()[-3:] == ["False", str(not PLACED), "False"]
    assert second.split()[:-3] == first.split()[:-3]


@pytest.mark.clause("OPS-44")
@pytest.mark.parametrize(
    "damage",
    [lambda kept: kept[:60], lambda kept: b"", lambda kept: kept[:-1] + bytes([kept[-1] ^ 1])],
    ids=["cut off", "empty", "one bit"],
)
def test_a_damaged_file_is_compiled_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """The first process fills a cache, the second finds its files damaged, the third finds them whole again."""
    assert run(ONE_KERNEL, tmp_path) == COMPILED
    files = list(tmp_path.rglob("*.o"))
    assert files
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    assert run(ONE_KERNEL, tmp_path) == COMPILED
    assert run(ONE_KERNEL, tmp_path) == LOADED


@pytest.mark.clause("OPS-44")
def test_what_cannot_be_kept_is_compiled_for_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    assert run(ONE_KERNEL, folder).startswith("32.0 32.0 ['relu, not kept: ")
    no_home = {"FERRUM_CACHE": "~nobody-has-this-name/x"}  # and where there is no home
    assert run(ONE_KERNEL, **no_home).startswith("32.0 32.0 ['relu, not kept: there is no cache folder")


@pytest.mark.clause("OPS-44")
def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels" / "one"
    files = KernelFiles(folder)
    files.write("a", b"kept")

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_room)
    files.write("a", b"never")
    files.write("b", b"never")
    assert (files.read("a"), files.read("b")) == (b"kept", None)
    assert sorted(path.name for path in folder.iterdir()) == ["a", MARK]
    assert files.refusal == "No space left on device"


@pytest.mark.clause("OPS-54")
def test_a_directory_that_was_removed_while_in_use_is_made_again(tmp_path: Path) -> None:
    """Two processes use it: what one writes afterwards, the other reads."""
    folder = tmp_path / "kernels" / "one"
    ours, theirs = KernelFiles(folder), KernelFiles(folder)
    ours.write("a.o", b"lost")
    shutil.rmtree(folder)
    assert theirs.read("a.o") is None and not theirs.has("a.o")
    theirs.write("b.o", b"kept")
    assert (ours.read("b.o"), ours.has("b.o"), ours.refusal, theirs.refusal) == (b"kept", True, None, None)


@pytest.mark.clause("OPS-44")
def test_the_kernel_cache_is_named_by_what_kernels_are_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = kernel_cache().name
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    assert kernel_cache().name == ours
    assert str(kernel_cache()).startswith("/somewhere/")
    monkeypatch.setattr(cache, "FEATURES", cache.FEATURES | {"imagined"})
    other = kernel_cache().name
    monkeypatch.setenv("NUMBA_CPU_NAME", "imagined")
    third = kernel_cache().name
    monkeypatch.setattr(cache, "_numba_version", lambda: b"imagined")
    assert len({ours, other, third, kernel_cache().name}) == 4


@pytest.mark.clause("OPS-48")
def test_every_number_that_kernels_take_from_elsewhere_is_in_that_name() -> None:
    """Otherwise a process would load a kernel with the old number after the number has changed."""
    sources = kernel_sources()
    compiled = set(Path(compiler.__file__).parent.glob("*.py"))
    assert compiled < set(sources)
    for path in compiled:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("ferrum.backends", "ferrum.tensor")):
                module = import_module(str(node.module))
                values = [getattr(module, alias.name, None) for alias in node.names]
                if any(isinstance(value, int | float | dict) for value in values):
                    assert Path(str(module.__file__)) in sources, f"{path.name} takes numbers from {node.module}"


@pytest.mark.clause("OPS-48")
def test_another_number_in_a_definition_is_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, (*kernels, definition) = kernel_cache().name, kernel_sources()
    changed = tmp_path / definition.name
    changed.write_bytes(definition.read_bytes() + b"\n")
    monkeypatch.setattr(cache, "kernel_sources", lambda: [*kernels, changed])
    assert kernel_cache().name != ours


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelFiles:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return kernel_files()


@pytest.mark.clause("OPS-49")
def test_another_process_compiles_into_the_cache(empty_cache: KernelFiles) -> None:
    """The library that waits for that process compiles nothing."""
    library = Library(empty_cache)
    library.compile_ahead(["elementwise.gated"])
    library._compiled = None  # type: ignore[assignment, method-assign]
    assert library.address("elementwise.gated")
    assert empty_cache.has("elementwise.gated.o")


@pytest.mark.clause("OPS-49")
def test_what_another_process_fails_to_make_is_compiled_here(
    empty_cache: KernelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        CompilingProcess(["elementwise.no_such_kernel"]).wait_for("elementwise.no_such_kernel.o", empty_cache) is None
    )
    for number, program in enumerate((shutil.which("false"), "/no/such/program", None)):
        monkeypatch.setattr("sys.executable", program)
        library = Library(KernelFiles(tmp_path / str(number) / "kernels" / "ours"))
        library.compile_ahead(["elementwise.gated"])
        assert library.address("elementwise.gated")


@pytest.mark.clause("OPS-49")
def test_no_process_is_started_for_kernels_that_are_stored(
    empty_cache: KernelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(empty_cache)
    empty_cache.write("elementwise.gated.o", b"here")
    monkeypatch.setattr("ferrum.backends.numba_kernels.loading.compiling_process.subprocess", None)
    library.compile_ahead(["elementwise.gated"])
    assert library._ahead is None
