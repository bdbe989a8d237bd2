"""ferrum: a reference inference engine. `LLM` and `SamplingParams` are all most programs need.

Importing this package loads neither numba nor cupy: a backend is loaded when an `LLM` is made.
"""

import sys  # nothing else comes before this: `__future__` is a file that could lie in the working directory, too

# `python -m ferrum`: Python is looking for the module that it was told to run, and has put the working directory first.
# Nothing that lies there is ours to import.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m").partition(".")[0] == "ferrum":
    del sys.path[: not sys.flags.safe_path]

from typing import TYPE_CHECKING, Any

from ferrum.sampling_params import SamplingParams, StructuredOutputs
from ferrum.types import Completion, Priority, StreamChunk

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM

__version__ = "0.1.0"
__all__ = ["LLM", "Completion", "Priority", "SamplingParams", "StreamChunk", "StructuredOutputs", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "LLM":
        from ferrum.engine.llm import LLM

        return LLM
    raise AttributeError(f"module 'ferrum' has no attribute {name!r}")
