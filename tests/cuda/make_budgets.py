"""Writes budgets.json: what every kernel takes of a multiprocessor today, and may take tomorrow.

    python -m tests.cuda.make_budgets

Owns: the list of all variants of all sources, and the file. Refuses to know: whether a change of it is worth it; that
is decided by the person who commits it. Next: `tests.cuda.launches`.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ferrum.backends.cuda import attention, blocks, choose, elementwise, exact_products, experts, products, rows, steps
from ferrum.backends.cuda.source import source
from tests.cuda.launches import LAUNCHES, noted
from tests.cuda.nvrtc import Needs, compiled, version

FILE = Path(__file__).with_name("budgets.json")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
Variant = tuple[str, tuple[tuple[str, str], ...]]
"""A file and its definitions."""

BINDINGS = (attention, blocks, choose, elementwise, exact_products, experts, products, rows, steps)
VARIANTS: tuple[Variant, ...] = tuple(
    (file, tuple(defines.items())) for binding in BINDINGS for file, defines in binding.VARIANTS
)


def name_of(variant: Variant) -> str:
    file, defines = variant
    return " ".join([file, *(f"{key}={value}" for key, value in defines)])


def needs(variant: Variant, architecture: str) -> tuple[dict[str, Needs], str]:
    file, defines = variant
    return compiled(source(file), defines, architecture)


def threads() -> dict[str, int]:
    """Of the largest block of each kernel among the launches of the table."""
    largest: dict[str, int] = {}
    for file, launches in LAUNCHES.items():
        for each in noted(launches):
            if each.file == file:
                largest[each.kernel] = max(each.threads, largest.get(each.kernel, 0))
    return largest


def budgets() -> dict[str, Any]:
    pairs = [(variant, architecture) for variant in VARIANTS for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(pairs, pool.map(lambda pair: needs(*pair)[0], pairs), strict=True))
    registers = {
        name_of(variant): {
            kernel: [results[variant, each][kernel].registers for each in ARCHITECTURES]
            for kernel in sorted(results[variant, ARCHITECTURES[0]])
        }
        for variant in VARIANTS
    }
    return {"nvrtc": version(), "architectures": ARCHITECTURES, "threads": threads(), "registers": registers}


def written(content: dict[str, Any]) -> str:
    """As JSON, with one line for each variant."""
    whole = {key: json.dumps(value) for key, value in content.items() if key != "registers"}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(each)}" for name, each in content["registers"].items())
    parts = [f"  {json.dumps(key)}: {value}" for key, value in whole.items()]
    return "{\n" + ",\n".join([*parts, f'  "registers": {{\n{lines}\n  }}']) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(written(budgets()), encoding="utf-8")
