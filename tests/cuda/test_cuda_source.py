"""CUDA-01: what a launch hands over is what the kernel's signature says."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.cuda import source as sources
from ferrum.backends.cuda.launch import Kernel, Kernels
from ferrum.backends.cuda.source import FOLDER, Parameter, kernel_files, signatures, source
from ferrum.errors import InternalError

TEXT = """
// extern "C" __global__ void no(int x) is no kernel
extern "C" __global__ void first(const float* __restrict__ x, /* rows, */ int rows,
                                 float scale) { }
__device__ void helper(int x) { }
extern "C" __global__ void __launch_bounds__(256) second(kv_t *keys, void* anything, unsigned long long seed,
    const signed char* codes, double unit, long long count, unsigned mask) { }
"""


@pytest.mark.clause("CUDA-01")
def test_signatures() -> None:
    found = signatures(TEXT, {"kv_t": "half_t"})
    assert found == {
        "first": (Parameter("x", "float", True), Parameter("rows", "int", False), Parameter("scale", "float", False)),
        "second": (
            Parameter("keys", "half_t", True),
            Parameter("anything", "void", True),
            Parameter("seed", "unsigned long long", False),
            Parameter("codes", "signed char", True),
            Parameter("unit", "double", False),
            Parameter("count", "long long", False),
            Parameter("mask", "unsigned", False),
        ),
    }


@pytest.mark.clause("CUDA-01")
def test_every_include_is_written_out_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    for name, text in {
        "one.cu": '#include "a.cuh"\n#include "b.cuh"\nint one;\n',
        "a.cuh": "int a;\n",
        "b.cuh": '#include "a.cuh"\nint b;\n',
    }.items():
        (tmp_path / name).write_text(text)
    source.cache_clear()
    try:
        assert source("one").split("\n") == ["int a;", "", "", "int b;", "", "int one;", ""]
        assert kernel_files() == ("one",)
    finally:
        source.cache_clear()


@pytest.mark.clause("CUDA-01")
@pytest.mark.parametrize("file", kernel_files())
def test_every_kernel_is_found_with_types_that_a_launch_knows(file: str) -> None:
    text = (FOLDER / f"{file}.cu").read_text(encoding="utf-8")
    assert len(signatures(source(file))) == len(re.findall(r"^extern \"C\" __global__", source(file), re.MULTILINE)) > 0
    assert "__global__" not in re.sub(r'^extern "C" __global__ void', "", text, flags=re.MULTILINE)
    assert '#include "' not in source(file) and "#include <" not in source(file)


def passed(parameter: str, *values: Any) -> Any:
    """What reaches a kernel with one parameter."""
    held: list[Any] = []
    text = f'extern "C" __global__ void f({parameter}) {{ }}'
    kernel = Kernel("f", signatures(text)["f"], lambda grid, block, arguments, shared_mem: held.append(arguments))
    kernel((1,), (32,), *values)
    return held[0][0]


NUMBERS = {
    "int": np.int32,
    "unsigned": np.uint32,
    "float": np.float32,
    "double": np.float64,
    "long long": np.int64,
    "unsigned long long": np.uint64,
}


@pytest.mark.clause("CUDA-01")
@given(st.sampled_from(sorted(NUMBERS)), st.integers(-(2**65), 2**65))
def test_a_number_has_the_type_of_its_parameter(kind: str, value: int) -> None:
    made = NUMBERS[kind]
    if issubclass(made, np.integer) and not np.iinfo(made).min <= value <= np.iinfo(made).max:
        with pytest.raises(InternalError, match=f"f: x is {kind}, too small for"):
            passed(f"{kind} x", value)
        return
    for given_number in (value, *([np.int64(value)] if -(2**63) <= value < 2**63 else [])):
        number = passed(f"{kind} x", given_number)
        assert type(number) is made and number == made(value)


@pytest.mark.clause("CUDA-01")
def test_a_float_is_rounded_once_and_an_int_is_a_float_where_one_is_wanted() -> None:
    assert passed("float x", 0.1) == np.float32(0.1) and passed("double x", np.float32(0.5)) == 0.5
    assert type(passed("float x", 1)) is np.float32


@pytest.mark.clause("CUDA-01")
@pytest.mark.parametrize(
    ("parameter", "value", "sentence"),
    [
        ("int x", 1.0, "f: x is int, not float"),
        ("int x", np.float32(1), "f: x is int, not float32"),
        ("int x", np.int64(2**40), "f: x is int, too small for 1099511627776"),
        ("unsigned x", -1, "f: x is unsigned, too small for -1"),
        ("long long x", np.ones(1, np.int64), "f: x is long long, not ndarray"),
        ("float x", np.ones((), np.float32), "f: x is float, not ndarray"),
        ("float x", "1", "f: x is float, not str"),
        ("float x", None, "f: x is float, not NoneType"),
        ("float2 x", 1.0, "f: x has the unknown type float2"),
        ("short x", 1, "f: x has the unknown type short"),
        ("const float* x", np.ones(3), "f: x points to float, not to float64"),
        ("const int* x", np.ones(3, np.int64), "f: x points to int, not to int64"),
        ("half_t* x", np.ones(3, np.uint16), "f: x points to half_t, not to uint16"),
        ("float4* x", np.ones(4, np.float32), "f: x points to float4, not to float32"),
        ("float* x", np.ones((4, 4), np.float32)[:, 1:], "f: x has gaps"),
        ("float* x", np.ones((4, 4), np.float32).T[:2], "f: x has gaps"),
        ("void* x", np.ones((4, 4), np.float32)[::2], "f: x has gaps"),
        ("float* x", 12345, "f: x is a pointer, not int"),
        ("float* x", np.float32(1), "f: x is a pointer, not float32"),
        ("void* x", [1.0], "f: x is a pointer, not list"),
    ],
)
def test_what_does_not_fit_is_refused(parameter: str, value: Any, sentence: str) -> None:
    with pytest.raises(InternalError, match=f"^{re.escape(sentence)}$"):
        passed(parameter, value)


@pytest.mark.clause("CUDA-01")
def test_arrays_that_fit_are_handed_over_as_they_are() -> None:
    for parameter, dtype in {
        "float* x": "float32", "const double* x": "float64", "int* x": "int32", "long long* x": "int64",
        "half_t* x": "float16", "unsigned long long* x": "uint64", "unsigned* x": "uint32",
        "unsigned char* x": "uint8", "signed char* x": "int8", "bool* x": "bool", "void* x": "int16",
    }.items():  # fmt: skip
        array = np.zeros((2, 3), dtype)
        assert passed(parameter, array) is array and passed(parameter, array[1:]).base is array
    array = np.zeros(3, ml_dtypes.bfloat16)
    assert passed("bfloat_t* x", array) is array
    assert passed("float* x", None) == 0 and type(passed("float* x", None)) is np.uint64


@pytest.mark.clause("CUDA-01")
def test_the_number_of_arguments_and_empty_grids() -> None:
    ran: list[Any] = []
    kernel = Kernel("first", signatures(TEXT)["first"], lambda *launch, shared_mem: ran.append((*launch, shared_mem)))
    x = np.zeros(3, np.float32)
    for arguments in [(), (x,), (x, 1), (x, 1, 1.0, 1)]:
        with pytest.raises(InternalError, match=f"^first takes 3 arguments, not {len(arguments)}$"):
            kernel((1,), (32,), *arguments)
    for grid in [(0,), (3, 0), (1, 1, 0)]:
        kernel(grid, (32,), x, 1, 1.0)
    assert ran == []
    kernel((3,), (32, 2), x, 1, 1.0, shared=16)
    assert ran[0][:2] == ((3, 1, 1), (32, 2, 1)) and ran[0][3] == 16


@pytest.mark.clause("CUDA-01")
def test_a_file_is_compiled_once_for_each_set_of_definitions() -> None:
    loaded: list[tuple[str, ...]] = []

    class Module:
        def get_function(self, name: str) -> Any:
            return lambda *launch, **options: None

    def load(text: str, options: tuple[str, ...]) -> Module:
        loaded.append(options)
        return Module()

    kernels, file = Kernels(load), kernel_files()[0]
    names = list(signatures(source(file)))
    for _ in range(2):
        for name in names:
            kernels.get(file, name, kv_t="half_t", WIDE="1")
            kernels.get(file, name, kv_t="float", WIDE="1")
    assert sorted(loaded) == [("-Dkv_t=float", "-DWIDE=1"), ("-Dkv_t=half_t", "-DWIDE=1")]
    assert kernels.get(file, names[0], kv_t="float") is kernels.get(file, names[0], kv_t="float")
