"""OPS-48: LLVM's description of the processor is cached; a file of another processor or another user is not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ferrum.backends.numba_kernels.loading import target
from ferrum.backends.numba_kernels.loading.target import Processor

TOLD = """processor\t: 0
vendor_id\t: GenuineMaker
model name\t: One
cpu MHz\t\t: {clock}
flags\t\t: {flags}

processor\t: 1
flags\t\t: none
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Processor]:
    """The answers of LLVM so far, with a system file and a cache that belong to the test."""
    answers: list[Processor] = []

    def ask() -> Processor:
        answers.append(Processor("quick", frozenset(["avx", "fma"])))
        return answers[-1]

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(target, "SYSTEM_TELLS", tmp_path / "cpuinfo")
    monkeypatch.setattr(target, "_asked", ask)
    tell(tmp_path)
    return answers


def tell(folder: Path, clock: str = "1000", flags: str = "sse avx") -> None:
    (folder / "cpuinfo").write_text(TOLD.format(clock=clock, flags=flags))


def found() -> Processor:
    return target.this_processor.__wrapped__()


@pytest.mark.clause("OPS-48")
def test_llvm_is_asked_once_for_a_processor(asked: list[Processor], tmp_path: Path) -> None:
    for clock in ("1000", "2000.5"):
        tell(tmp_path, clock)
        assert found() == Processor("quick", frozenset(["avx", "fma"]))
    assert len(asked) == 1
    tell(tmp_path, flags="sse")
    found()
    assert len(asked) == 2


@pytest.mark.clause("OPS-48")
def test_another_llvm_is_asked_again(asked: list[Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    found()
    monkeypatch.setattr("llvmlite.__version__", "another")
    found()
    assert len(asked) == 2


@pytest.mark.clause("OPS-48", "OPS-53")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
    ],
    ids=["cut off", "empty", "others can write it", "others can write there"],
)
def test_what_is_damaged_or_not_private_is_not_believed(
    spoil: Callable[[Path], object], asked: list[Processor], tmp_path: Path
) -> None:
    found()
    spoil(tmp_path / "cache" / "kernels" / target.FILE)
    assert found() == Processor("quick", frozenset(["avx", "fma"]))
    assert len(asked) == 2


@pytest.mark.clause("OPS-48")
@pytest.mark.parametrize("world", ["the system tells nothing", "no cache"])
def test_without_a_word_or_a_place_llvm_is_asked_every_time(
    world: str, asked: list[Processor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world == "no cache":
        monkeypatch.setenv("NUMBA_CACHE_DIR", "")
        monkeypatch.setenv("FERRUM_CACHE", "~nobody-has-this-name/x")
    else:
        (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert found() == found()
    assert len(asked) == 2


@pytest.mark.clause("OPS-48")
def test_this_processor_is_the_one_that_llvm_sees() -> None:
    assert target.this_processor() == target._asked()
