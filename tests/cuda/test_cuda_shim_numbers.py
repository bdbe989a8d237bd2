"""CUDA-12, CUDA-16: what shuffles move, and numbers of 16 bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda.shim import SCHEDULES
from tests.cuda.texts import COMMON, GLOBAL, kernel


# ---- shuffles
def shuffled(kind: str, x: np.ndarray, number: int, width: int) -> np.ndarray:
    """What CUDA's guide says of each kind, for one warp."""
    lanes = np.arange(32)
    first = lanes // width * width
    source = {
        "": first + number % width,
        "_xor": lanes ^ number,
        "_up": lanes - number,
        "_down": lanes + number,
    }[kind]
    inside = (source >= first) & (source < first + width)
    return x[np.where(inside, source, lanes)]


@pytest.mark.clause("CUDA-12")
@pytest.mark.parametrize("kind", ["", "_xor", "_up", "_down"])
@pytest.mark.parametrize("element", ["float", "int", "unsigned", "double", "long long", "unsigned long long"])
def test_shuffles_move_what_they_should(kind: str, element: str) -> None:
    text = f"""{GLOBAL} f(const {element}* x, {element}* y, int number, int width) {{
        {element} own = x[threadIdx.x];
        for (int i = 0; i < 3; i++) own = __shfl{kind}_sync(0xffffffffu, own, number, width);
        y[threadIdx.x] = own;
    }}"""
    run, numbers = kernel(text), np.random.default_rng(0)
    types = {
        "float": "f4",
        "int": "i4",
        "unsigned": "u4",
        "double": "f8",
        "long long": "i8",
        "unsigned long long": "u8",
    }
    for width in (2, 4, 8, 16, 32):
        for number in range(32):
            x = numbers.integers(0, 256, (64, 8), np.uint8).view(types[element])[:, 0].copy()
            y = np.zeros_like(x)
            run((1,), (64,), x, y, number, width)
            expected = x.reshape(2, 32)
            for _ in range(3):
                expected = np.stack([shuffled(kind, each, number, width) for each in expected])
            assert y.tobytes() == expected.tobytes()


@pytest.mark.clause("CUDA-12")
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from(SCHEDULES))
def test_votes(predicates: int, mask: int, seed: int) -> None:
    text = f"""{GLOBAL} f(unsigned* y, unsigned predicates, unsigned mask) {{
        int lane = threadIdx.x, own = predicates >> lane & 1;
        if (!(mask >> lane & 1)) return;
        y[lane] = __ballot_sync(mask, own ? 7 : 0);
        y[32 + lane] = __any_sync(mask, own);
        y[64 + lane] = __all_sync(mask, own);
    }}"""
    y = np.zeros((3, 32), np.uint32)
    kernel(text, seed=seed)((1,), (32,), y, predicates, mask)
    inside = mask >> np.arange(32) & 1
    votes = predicates & mask
    assert (y == inside * np.array([[votes], [votes != 0], [votes == mask]])).all()


# ---- numbers of 16 bits
def widened(kind: str, bits: np.ndarray) -> np.ndarray:
    index = "int i = blockIdx.x * 1024 + threadIdx.x;"
    text = f"{COMMON}\n{GLOBAL} f(const {kind}* x, float* y) {{ {index} y[i] = to_float(x[i]); }}"
    y = np.zeros(len(bits), np.float32)
    kernel(text)((len(bits) // 1024,), (1024,), bits, y)
    return y


def narrowed(kind: str, values: np.ndarray) -> np.ndarray:
    index = "int i = blockIdx.x * 1024 + threadIdx.x;"
    text = f"{COMMON}\n{GLOBAL} f(const float* x, {kind}* y) {{ {index} store(y + i, x[i]); }}"
    y = np.zeros(len(values), TYPES[kind])
    kernel(text)((len(values) // 1024,), (1024,), values, y)
    return y


TYPES: dict[str, Any] = {"half_t": np.float16, "bfloat_t": ml_dtypes.bfloat16}


@pytest.mark.clause("CUDA-16")
@pytest.mark.parametrize("kind", TYPES)
def test_every_16_bit_number_is_read_and_written(kind: str) -> None:
    x = np.arange(65536, dtype=np.uint16).view(TYPES[kind])
    y = widened(kind, x)
    expected = x.astype(np.float32)
    number = ~np.isnan(expected)
    assert (np.isnan(y) == ~number).all()
    assert (y[number].view(np.uint32) == expected[number].view(np.uint32)).all()
    back = narrowed(kind, y)
    assert (back[number].view(np.uint16) == x[number].view(np.uint16)).all()
    assert np.isnan(back[~number].astype(np.float32)).all()


@pytest.mark.clause("CUDA-16")
@pytest.mark.parametrize("kind", TYPES)
@given(st.integers(0, 2**32 - 1))
def test_a_float_is_rounded_to_the_nearest_and_a_tie_to_even(kind: str, seed: int) -> None:
    """Random bits, and the numbers halfway between two neighbours and beside them."""
    numbers = np.random.default_rng(seed)
    random = numbers.integers(0, 2**32, 4096, np.uint32).view(np.float32)
    one = numbers.integers(0, 65536, 4096, np.uint16).view(TYPES[kind]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        half = one + one * np.float32(2 ** -(11 if kind == "half_t" else 8))
    near = np.concatenate([half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(np.inf))])
    small = (numbers.integers(-(2**12), 2**12, 4096) * 2.0**-26).astype(np.float32)
    x = np.concatenate([random, near, small])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(TYPES[kind])
    y = narrowed(kind, x)
    number = ~np.isnan(x)
    assert np.isnan(y[~number].astype(np.float32)).all()
    assert (y[number].view(np.uint16) == expected[number].view(np.uint16)).all()
