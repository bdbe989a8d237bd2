"""CUDA-18: a kernel without one of its barriers gives other results in some order of threads."""

from __future__ import annotations

import os
import re
import resource
from functools import cache

import numpy as np
import pytest

from ferrum.backends.cuda.launch import Module
from ferrum.backends.cuda.source import _INCLUDE, FOLDER, kernel_files, signatures, source
from ferrum.testing.cuda_shim.device import ShimDevice, _Launched
from ferrum.testing.cuda_shim.module import ShimModule
from tests.cuda.launches import LAUNCHES, noted
from tests.cuda.shim import ON_GPU

pytestmark = pytest.mark.skipif(ON_GPU, reason="a GPU runs threads in an order of its own")

SEEDS = range(1, 21)
MOST_SECONDS = 20
"""What a kernel that goes astray may take."""
BARRIER = re.compile(r"__sync(?:threads|warp)\(")
PLAIN = re.compile(r"\s*__sync(?:threads|warp)\(\);")
EXCUSE = re.compile(PLAIN.pattern + r"  // no lane needs it: .*")

Place = tuple[str, int]
"""A line of a file."""


@cache
def places(name: str) -> tuple[Place, ...]:
    """Where each line of a file comes from once its includes are written out."""
    return tuple(_places(name, set()))


def _places(name: str, seen: set[str]) -> list[Place]:
    found: list[Place] = []
    for number, line in enumerate((FOLDER / name).read_text(encoding="utf-8").split("\n")[:-1], 1):
        included = _INCLUDE.fullmatch(line)
        if included and included[1] not in seen:
            seen.add(included[1])
            found += _places(included[1], seen)
        found.append((name, number))
    return found


def barriers() -> dict[Place, str]:
    """Every line of the sources with a barrier, but those that say themselves why no lane needs them."""
    lines = {
        (path.name, number): line
        for path in sorted(FOLDER.glob("*.cu*"))
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        if BARRIER.search(line.partition("//")[0])
    }
    return {place: line for place, line in lines.items() if not EXCUSE.fullmatch(line)}


class Without(ShimDevice):
    """A device whose compiler leaves out the barrier in one line of one text."""

    def __init__(self, seed: int, text: str = "", line: int = 0) -> None:
        super().__init__(seed)
        self._own, self._text, self._line = seed, text, line

    def _load(self, text: str, options: tuple[str, ...]) -> Module:
        return _Launched(self, ShimModule(text, options, self._own, self._line if text == self._text else 0))


# A header may promise more of a function than the kernels of today rely on: here it is called three times in a row.
AGAIN = {"common.cuh": ("float", "block_max"), "order.cuh": ("place_t", "block_best")}
"""Headers, and one function in each of them whose shared memory may be used again at once."""


def called_again(header: str, seed: int, line: int = 0) -> list[bytes]:
    kind, function = AGAIN[header]
    own = [(FOLDER / name).read_text(encoding="utf-8").split("\n")[number - 1] for name, number in places(header)]
    kernel = f"""extern "C" __global__ void again(float* out) {{
        __shared__ {kind} parts[32];
        for (int round = 3; round > 0; round--)
            out[threadIdx.x] += {function}(({kind})(round * 1000 + threadIdx.x), parts);
    }}"""
    text = "\n".join(("" if _INCLUDE.fullmatch(each) else each) for each in own) + "\n" + kernel
    out = np.zeros(256, np.float32)
    ShimModule(text, (), seed, line).get_function("again")((1, 1, 1), (256, 1, 1), (out,))
    return [out.tobytes()]


def results(file: str, seed: int, line: int = 0) -> list[bytes]:
    """Of all kernels of a file, without the barrier in a line of its text."""
    if file in AGAIN:
        return called_again(file, seed, line)
    launched = LAUNCHES[file](Without(seed, source(file), line))
    assert all(each is not None for each in launched), "every launch has a result"
    return [np.ascontiguousarray(each).tobytes() for each in launched]


@cache
def right(file: str) -> list[bytes]:
    return results(file, SEEDS[0])


def lines_of(file: str) -> tuple[Place, ...]:
    return places(file if file in AGAIN else f"{file}.cu")


def users(place: Place) -> list[str]:
    """Whose text contains a line."""
    return [file for file in (*AGAIN, *kernel_files()) if place in lines_of(file)]


def is_missed(file: str, place: Place) -> bool:
    """True if some order of threads shows that the barrier is gone. Runs in another process, since kernels without a
    barrier may crash."""
    expected, line = right(file), lines_of(file).index(place) + 1
    child = os.fork()
    if child == 0:
        missed = True
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
            missed = any(results(file, seed, line) != expected for seed in SEEDS)
        finally:  # an error is as good as another result
            os._exit(int(missed))
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.clause("CUDA-18")
@pytest.mark.parametrize("place", barriers(), ids=lambda place: f"{place[0]}-{place[1]}")
def test_every_barrier_is_missed(place: Place) -> None:
    """One that several files include, by the kernels of one of them."""
    assert any(is_missed(file, place) for file in users(place)), f"no kernel misses the barrier in line {place}"


@pytest.mark.clause("CUDA-18")
@pytest.mark.parametrize("file", [*kernel_files(), *AGAIN])
def test_every_kernel_is_launched_and_right_in_every_order(file: str) -> None:
    if file not in AGAIN:
        assert {each.kernel for each in noted(LAUNCHES[file]) if each.file == file} == set(signatures(source(file)))
    assert all(results(file, seed) == right(file) for seed in SEEDS[:5])
    assert not is_missed(file, lines_of(file)[0]), "without a line that is no barrier nothing changes"


@pytest.mark.clause("CUDA-18")
def test_no_barrier_is_overlooked() -> None:
    assert set(LAUNCHES) == set(kernel_files())
    for file in kernel_files():
        assert len(places(f"{file}.cu")) == source(file).count("\n")
        whole = source(file).split("\n")
        for (name, number), line in zip(places(f"{file}.cu"), whole, strict=False):
            original = (FOLDER / name).read_text(encoding="utf-8").split("\n")[number - 1]
            assert line == ("" if _INCLUDE.fullmatch(original) else original)
    for place, line in barriers().items():
        assert PLAIN.fullmatch(line), f"{place}: a barrier stands on a line of its own"
        assert users(place)
