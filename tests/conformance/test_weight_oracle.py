"""The oracle of weights is compared with ggml's decoder, and random weights have normal sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ferrum.conformance import weight_oracle
from ferrum.conformance.oracles import Expected
from ferrum.conformance.tolerances import assert_close
from ferrum.testing import blocks
from ferrum.testing.blocks import random_blocks

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "quants.npz")
KINDS = list(weight_oracle.BLOCKS)


@pytest.mark.clause("OPS-17")
@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_reads_what_ggml_reads(kind: str) -> None:
    values, sizes = weight_oracle.dequantize(kind, GOLDENS[f"{kind.upper()}_blocks"])
    assert_close(GOLDENS[f"{kind.upper()}_values"], Expected(values, sizes), "float32")


@pytest.mark.clause("OPS-17")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 0.02])
def test_random_blocks_are_numbers_of_the_size_asked_for(kind: str, size: float) -> None:
    block = blocks.BLOCKS[kind]
    data = random_blocks(kind, (16, 2048), np.random.default_rng(0), size)
    assert (data.dtype, data.shape) == (np.uint8, (16, 2048 // block.size * block.bytes))
    values = weight_oracle.dequantize(kind, data)[0]
    assert np.isfinite(values).all()
    assert 0.8 * size < np.sqrt(np.mean(values**2)) < 1.25 * size
    assert abs(np.mean(values)) < 0.1 * size


def test_random_blocks_may_have_scales_of_zero() -> None:
    random = np.random.default_rng(0)
    half = weight_oracle.dequantize("q6_k", random_blocks("q6_k", (20, 512), random, zeros=0.5))[0]
    assert 0.2 < np.mean((half.reshape(40, 256) == 0).all(1)) < 0.8


def test_random_blocks_of_a_width_that_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="288 columns are not a multiple of 256"):
        random_blocks("q4_k", (1, 288), np.random.default_rng(0))
