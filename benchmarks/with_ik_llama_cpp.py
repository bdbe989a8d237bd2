"""The contestant ik_llama.cpp, a fork of llama.cpp, through the C interface that ik-llama-cpp-python exposes.

Everything is as in `with_llama_cpp.py`; this file has the calls that the fork names otherwise. Flash attention is on,
as it is for its users, but for several sequences, with which its kernel ends the process (version 0.1.5). The setting
`repack` turns interleaved weights, made when the file is loaded, on or off.
"""

from __future__ import annotations

import ctypes
from typing import Any

import with_llama_cpp
from tasks import Task, told


class Model(with_llama_cpp.Model):
    def _library(self) -> Any:
        from ik_llama_cpp import _ctypes_api as library

        raw = library._lib.llama_get_logits
        raw.argtypes, raw.restype = [ctypes.c_void_p], ctypes.POINTER(ctypes.c_float)
        library.llama_get_logits = raw  # type: ignore[attr-defined]
        return library

    def _model_parameters(self, task: Task) -> Any:
        found = self._c.llama_model_default_params()
        found.repack_tensors = task.settings.get("repack") == "on"
        found.use_mmap = not found.repack_tensors  # interleaved weights have a memory of their own
        return found

    def _set_flash(self, found: Any, flash: str) -> None:
        found.flash_attn = found.n_seq_max == 1

    def forget(self) -> None:
        self._c.llama_kv_cache_clear(self._context)


if __name__ == "__main__":
    with_llama_cpp.measure(told(), Model(told()))
