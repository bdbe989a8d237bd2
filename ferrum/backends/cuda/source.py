"""CUDA sources as text with their includes inserted, and the signatures of their kernels.

Owns: reading `kernels/*.cu`, and the types of the parameters of kernels. CuPy passes a Python float as `double` and an
int as `long long`, whatever the kernel declares, so a launch needs the signature.
Refuses to know: how the text is compiled and run.
Specs: CUDA-01. Next: `ferrum.backends.cuda.launch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("kernels")

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(([^)]*)\)', re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel. `type`: the type of a number, or the type that a pointer points to."""

    name: str
    type: str
    is_pointer: bool


def kernel_files() -> tuple[str, ...]:
    """The names of all files of kernels, without `.cu`."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.cu")))


@cache
def source(file: str) -> str:
    """The text of kernels/{file}.cu. Each included file is inserted once, at its first include."""
    return _written_out((FOLDER / f"{file}.cu").read_text(encoding="utf-8"), set())


def _written_out(text: str, seen: set[str]) -> str:
    def replace(found: re.Match[str]) -> str:
        if found[1] in seen:
            return ""
        seen.add(found[1])
        return _written_out((FOLDER / found[1]).read_text(encoding="utf-8"), seen)

    return _INCLUDE.sub(replace, text)


def signatures(text: str, defines: Mapping[str, str] = {}) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of every kernel in a text. A name of a type in `defines` stands for its value."""
    found = _KERNEL.findall(_COMMENT.sub("", text))
    return {name: tuple(_parameter(each, defines) for each in inside.split(",")) for name, inside in found}


def _parameter(text: str, defines: Mapping[str, str]) -> Parameter:
    words = [word for word in text.replace("*", " * ").split() if word not in ("const", "__restrict__")]
    kind = " ".join(word for word in words[:-1] if word != "*")
    return Parameter(words[-1], defines.get(kind, kind), "*" in words)
