"""OPS-83: products of int8 on every target that this processor can be forced to, each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.testing.blocks import BLOCKS
from tests.backends.test_forced_targets import BASELINE, HOST, SHUFFLED, TARGETS, WIDE, Target, run, unforced
from tests.backends.under_target import rounded_products
from tests.house.source import ROOT

DOTS = {
    "plain": TARGETS["plain"],
    "avx2": TARGETS["avx2"],
    "avxvnni": Target("alderlake", SHUFFLED | {"avxvnni"}),
    "avx512": TARGETS["avx512"],
    "avx512vnni": Target("icelake-server", WIDE | {"avx512vnni"}),
}
"""Targets that each multiply bytes with other instructions, or in registers of another width."""
DOT_OF = {
    "plain": "pmullw", "avx2": "vpmaddubsw", "avxvnni": "vpdpbusd", "avx512": "vpmaddubsw", "avx512vnni": "vpdpbusd",
}  # fmt: skip
SOME = ("q4_k", "q8_0")
"""The kinds of weights: one with minimums and one with signed codes; at night all kinds."""
KINDS = tuple(BLOCKS) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else SOME


@pytest.mark.clause("OPS-83", "OPS-48", "OPS-51")
@pytest.mark.parametrize("name", DOTS)
def test_products_of_a_forced_target_have_the_bits_of_the_definition(name: str, tmp_path: Path) -> None:
    missing = DOTS[name].features - HOST
    if missing:
        pytest.skip(f"this processor cannot execute {name}: it has no {', '.join(sorted(missing))}")
    environment = {**unforced(), **DOTS[name].environment, "FERRUM_CACHE": str(tmp_path / "cache")}
    path = tmp_path / "found.npz"
    done = run(["tests.backends.under_target", "int8", str(path), *KINDS], environment)
    assert done.returncode == 0, done.stderr
    if sys.platform == "linux":
        assert done.stdout == "0 linked by LLVM"
    with np.load(path) as found:
        for kind in KINDS:
            expected = rounded_products(NumpyOps(compute="int8"), kind)
            assert np.isfinite(expected[:-1]).all() and np.isnan(expected[-1]).all()
            assert found[kind][:-1].tobytes() == expected[:-1].tobytes(), kind
            assert np.isnan(found[kind][-1]).all()


@pytest.mark.clause("OPS-83", "OPS-51")
@pytest.mark.skipif(not HOST >= BASELINE, reason="the targets are of x86 processors")
@pytest.mark.parametrize("name", DOTS)
def test_bytes_are_multiplied_by_what_the_target_has(name: str, tmp_path: Path) -> None:
    """The code is compiled, not executed. No target may fuse a product and its addition: that rounds differently."""
    program = (
        "from tests.backends.under_target import assembly_of; code = assembly_of('integer_products.single.q8_0');"
        f"print(code.count('{DOT_OF[name]}'), code.count('fmadd'))"
    )
    environment = {**unforced(), **DOTS[name].environment, "FERRUM_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    dots, fused = map(int, done.stdout.split())
    assert dots >= 8 and fused == 0
