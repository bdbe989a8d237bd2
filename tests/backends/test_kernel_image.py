"""OPS-48: object files placed in memory without LLVM do what LLVM's linker makes of them, or are left to it."""

from __future__ import annotations

import ctypes
import gc
import struct

import llvmlite.binding as llvm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.loading import objects
from ferrum.backends.numba_kernels.loading.image import RELOCATABLE_X86_64, Image, NotPlaceable
from ferrum.backends.numba_kernels.loading.objects import ObjectCode, link

SOURCE = """
@table = internal constant [4 x i64] [i64 {}, i64 {}, i64 {}, i64 {}]
@text = internal constant [3 x i8] c"-7\\00"
declare i64 @atol(i8*)
define internal i64 @inner(i64 %at) noinline {{
  %place = getelementptr [4 x i64], [4 x i64]* @table, i64 0, i64 %at
  %found = load i64, i64* %place
  ret i64 %found
}}
define i64 @outer(i64 %at) {{
  %known = call i64 @inner(i64 %at)
  %parsed = call i64 @atol(i8* getelementptr ([3 x i8], [3 x i8]* @text, i64 0, i64 0))
  %sum = add i64 %known, %parsed
  ret i64 %sum
}}
"""


def compiled(source: str, model: str = "large") -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        opt=0, codemodel=model, reloc="pic" if model == "small" else "default", jit=True
    )
    return machine.emit_object(llvm.parse_assembly(source))


def is_placed(code: bytes) -> bool:
    try:
        Image(code, objects._outside)
    except NotPlaceable:
        return False
    return True


needs_x86_64_linux = pytest.mark.skipif(
    not compiled("define void @nothing() { ret void }").startswith(RELOCATABLE_X86_64),
    reason="only object files of Linux for x86-64 are placed",
)


@pytest.mark.clause("OPS-48")
@needs_x86_64_linux
@given(st.lists(st.integers(-(2**62), 2**62), min_size=4, max_size=4))
def test_code_finds_its_data_its_functions_and_those_of_the_process(numbers: list[int]) -> None:
    code = compiled(SOURCE.format(*numbers))
    image = Image(code, objects._outside)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(image.address("outer"))
    assert [function(at) for at in range(4)] == [number - 7 for number in numbers]
    assert image.address("no_such_function") == image.address("atol") == 0


@pytest.mark.clause("OPS-48")
@needs_x86_64_linux
@pytest.mark.parametrize("model", ["small", "large"])
def test_what_cannot_be_placed_is_linked_by_llvm(model: str) -> None:
    """Distances in the small code model have 32 bits, so distant addresses need a table."""
    code = compiled(SOURCE.format(1, 2, 3, 4), model)
    assert is_placed(code) == (model == "large")
    place = link(ObjectCode("outer", code))
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(place)(3) == -3


@pytest.mark.clause("OPS-48")
@needs_x86_64_linux
@pytest.mark.parametrize(
    "source",
    [
        "@counter = global i64 7\ndefine i64* @outer() { ret i64* @counter }",
        "@shared = common global i64 0\ndefine i64* @outer() { ret i64* @shared }",
        "declare i64 @nobody_has_this()\ndefine i64 @outer() { %x = call i64 @nobody_has_this()\n ret i64 %x }",
    ],
    ids=["written to", "common", "unknown"],
)
def test_what_needs_more_of_a_linker_is_not_placed(source: str) -> None:
    assert not is_placed(compiled(source))


@pytest.mark.clause("OPS-48")
@needs_x86_64_linux
def test_files_of_other_machines_and_processes_that_may_run_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compiled(SOURCE.format(1, 2, 3, 4))
    for at, other in ((4, 1), (16, 2), (18, 183)):  # 32 bits, an executable, ARM
        assert not is_placed(code[:at] + struct.pack("B", other) + code[at + 1 :])
    monkeypatch.setattr("ferrum.backends.numba_kernels.loading.image.READ_AND_RUN", -1)  # what no system permits
    assert not is_placed(code)


@pytest.mark.clause("OPS-48")
@needs_x86_64_linux
def test_code_outlives_what_the_interpreter_frees() -> None:
    """Threads of a team may run kernels until the very end of a process."""
    code = compiled(SOURCE.format(1, 2, 3, 4))
    place = Image(code, objects._outside).address("outer")
    gc.collect()
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(place)(2) == -4
