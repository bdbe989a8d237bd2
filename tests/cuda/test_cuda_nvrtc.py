"""CUDA-02: what the compiler of CUDA makes of every source, in every variant that a binding asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings

from ferrum.backends.cuda.source import kernel_files, signatures, source
from ferrum.testing.cuda_shim.compiler import compiler
from tests.cuda import nvrtc
from tests.cuda.launches import LAUNCHES, noted
from tests.cuda.make_budgets import ARCHITECTURES, FILE, VARIANTS, Variant, name_of, needs, written
from tests.cuda.nvrtc import Needs, compiled, read

needs_nvrtc = pytest.mark.skipif(nvrtc.find_library() is None, reason=nvrtc.REASON)
USUAL = "sm_90"
"""The architecture for which every run compiles everything; for the others it compiles one variant of each file, and
the profile `nightly` all of them."""
MOST_SHARED = 48 << 10
ALONE = ("draw",)
"""Kernels of which one block on a multiprocessor is enough: a row is a block, and there are fewer rows than those."""
STACKS = {"FUNCTION=sin_of": 32, "FUNCTION=cos_of": 32}
"""Bytes by definition: CUDA's functions put the digits of pi there, for angles above 10^5."""

BUDGETS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
FIRST = {file: (file, defines) for file, defines in reversed(VARIANTS)}


def compilations() -> list[tuple[Variant, str]]:
    every = settings.get_current_profile_name() == "nightly"
    pairs = [(variant, architecture) for variant in VARIANTS for architecture in ARCHITECTURES]
    return [(v, each) for v, each in pairs if every or each == USUAL or FIRST[v[0]] == v]


def named(value: Any) -> str:
    return value if isinstance(value, str) else name_of(value)


def complaints(found: dict[str, Needs], said: str, variant: Variant, architecture: str) -> list[str]:
    """What is wrong with a compiled source."""
    wrong = [said] if said else []
    stack = max(STACKS.get("=".join(each), 0) for each in (*variant[1], ("", "")))
    for kernel, each in found.items():
        threads, place = BUDGETS["threads"][kernel], ARCHITECTURES.index(architecture)
        allowed = BUDGETS["registers"][name_of(variant)][kernel][place]
        if each.stack > stack or each.spills:
            wrong.append(f"{kernel} keeps {each.stack} bytes on a stack and spills {each.spills}")
        if each.shared > MOST_SHARED:
            wrong.append(f"{kernel} needs {each.shared} bytes of shared memory")
        if each.blocks(threads) < 2 and kernel not in ALONE:
            wrong.append(f"{kernel} needs {each.registers} registers: two blocks of {threads} threads do not fit")
        if BUDGETS["nvrtc"] == nvrtc.version() and each.registers > allowed:
            wrong.append(
                f"{kernel} needs {each.registers} registers instead of {allowed}: python -m tests.cuda.make_budgets"
            )
    return wrong


@needs_nvrtc
@pytest.mark.clause("CUDA-02")
@pytest.mark.parametrize(("variant", "architecture"), compilations(), ids=named)
def test_a_source_compiles_within_its_budget(variant: Variant, architecture: str) -> None:
    found, said = needs(variant, architecture)
    assert set(found) == set(signatures(source(variant[0])))
    assert complaints(found, said, variant, architecture) == []


@pytest.mark.clause("CUDA-02")
def test_every_variant_has_a_budget_and_every_file_a_variant() -> None:
    assert list(BUDGETS["registers"]) == [name_of(variant) for variant in VARIANTS]
    assert len(set(VARIANTS)) == len(VARIANTS)
    assert {file for file, _ in VARIANTS} == set(kernel_files())
    assert BUDGETS["architectures"] == list(ARCHITECTURES)
    assert written(BUDGETS) == FILE.read_text(encoding="utf-8")


@pytest.mark.clause("CUDA-02")
@pytest.mark.skipif(compiler() is None, reason="kernels run on the CPU only where there is a C++ compiler")
@pytest.mark.parametrize("file", kernel_files())
def test_what_bindings_launch_is_among_the_variants(file: str) -> None:
    known = [(name, dict(defines)) for name, defines in VARIANTS]
    for each in noted(LAUNCHES[file]):
        assert (each.file, dict(each.defines)) in known
        assert each.threads <= BUDGETS["threads"].get(each.kernel, 0) or each.file != file


# ---- the tester
BAD = """
extern "C" __global__ void spilling(const float* x, float* y, int n) {
    float held[64];
    for (int i = 0; i < 64; i++) held[i] = x[i * threadIdx.x];
    for (int i = 0; i < n; i++) held[(i * n) % 64] += held[i % 64];
    for (int i = 0; i < 64; i++) y[i] += held[i];
}
"""


@needs_nvrtc
@pytest.mark.clause("CUDA-02")
def test_what_is_wrong_is_seen() -> None:
    found, said = compiled(BAD, (), USUAL)
    assert found["spilling"].stack >= 256 and not said
    unused = 'extern "C" __global__ void f(float* y) { int unused; y[0] = 1; }'
    assert "never referenced" in compiled(unused, (), USUAL)[1]
    with pytest.raises(ValueError, match="nonsense"):
        compiled("nonsense", (), USUAL)


@needs_nvrtc
@pytest.mark.clause("CUDA-02")
def test_definitions_and_architectures_reach_the_compiler() -> None:
    body = "__shared__ number_t held[SIZE]; held[threadIdx.x] = y[0]; y[1] = held[SIZE - 1];"
    text = f'extern "C" __global__ void f(float* y) {{ {body} }}'
    found, _ = compiled(text, (("number_t", "double"), ("SIZE", "100")), "sm_80")
    assert found["f"].shared == 800


@pytest.mark.clause("CUDA-02")
def test_logs_and_what_fits() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
ptxas         .     16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 256 bytes smem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers
ptxas warning : something
"""
    assert read(log) == ({"one": Needs(40, 256, 16, 32), "two": Needs(255, 0, 0, 0)}, "ptxas warning : something")
    cases = [(32, 1024, 2), (33, 1024, 1), (64, 512, 2), (65, 512, 1), (128, 256, 2), (255, 128, 2), (255, 256, 1)]
    for registers, threads, blocks in cases:
        assert Needs(registers, 0, 0, 0).blocks(threads) == blocks
    variant = FIRST["argmax"]
    kernel, allowed = next(iter(BUDGETS["registers"][name_of(variant)].items()))
    allowed = allowed[ARCHITECTURES.index(USUAL)]
    fine = Needs(allowed, 0, 0, 0)
    for wrong in ({"stack": 8}, {"spills": 8}, {"shared": MOST_SHARED + 1}, {"registers": allowed + 1}):
        found = {kernel: Needs(**{**vars(fine), **wrong})}
        assert len(complaints(found, "", variant, USUAL)) >= 1
    assert complaints({kernel: fine}, "a warning", variant, USUAL) == ["a warning"]
    assert complaints({kernel: fine}, "", variant, USUAL) == []
