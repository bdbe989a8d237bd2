"""The CUDA sources as text: their includes written out, and the signatures of their kernels.

Owns: reading `kernels/*.cu`, and what a launch must know of a kernel's parameters. CuPy takes a Python float for a
`double` and an int for a `long long`, whatever the kernel says: only the signature can tell what is right.
Refuses to know: who compiles the text and who runs it.
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
    """One parameter of a kernel. `type`: of what is passed, or of what a pointer points to."""

    name: str
    type: str
    is_pointer: bool


def kernel_files() -> tuple[str, ...]:
    """The name of every file of kernels, without its ending."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.cu")))


@cache
def source(file: str) -> str:
    """The text of kernels/{file}.cu, with every include in its place, once."""
    return _written_out((FOLDER / f"{file}.cu").read_text(encoding="utf-8"), set())


def _written_out(text: str, seen: set[str]) -> str:
    def replace(found: re.Match[str]) -> str:
        if found[1] in seen:
            return ""
        seen.add(found[1])
        return _written_out((FOLDER / found[1]).read_text(encoding="utf-8"), seen)

    return _INCLUDE.sub(replace, text)


def signatures(text: str, defines: Mapping[str, str] = {}) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of every kernel in a text. Names of types that `defines` gives a value stand for that."""
    found = _KERNEL.findall(_COMMENT.sub("", text))
    return {name: tuple(_parameter(each, defines) for each in inside.split(",")) for name, inside in found}


def _parameter(text: str, defines: Mapping[str, str]) -> Parameter:
    words = [word for word in text.replace("*", " * ").split() if word not in ("const", "__restrict__")]
    kind = " ".join(word for word in words[:-1] if word != "*")
    return Parameter(words[-1], defines.get(kind, kind), "*" in words)
