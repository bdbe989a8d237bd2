"""The same on PyTorch.

Owns: nothing but its name. Refuses to know: PyTorch. Specs: SUITE-15. Next: `benchmarks/suites/onnx_nodes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .array_api import properties
from .fetch import TORCH, Source
from .verdict import Verdict

SOURCE = Source(TORCH, "this project's suite on a backend made of it")


def run(data: Path) -> Iterator[Verdict]:
    return properties("ferrum_array_api:TorchOps")
