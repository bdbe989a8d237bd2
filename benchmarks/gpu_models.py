"""Whole models for `gpu_bench.py`: random weights made where they stay, and speeds through the engine.

Weights are made on the GPU, a matrix at a time, the same for the same seed, so that any process can have them again;
the host never holds 16 GB. `Resident` takes what is on the device already as it is, and runs steps eagerly where it is
told to.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

from ferrum import LLM
from ferrum.backends.cuda.device import Device
from ferrum.backends.cupy_backend import CupyOps
from ferrum.cli.bench import measure, prompts
from ferrum.config import EngineConfig, ModelConfig, RopeConfig
from ferrum.load.layouts_json import LLAMA
from ferrum.load.random_model import RandomModel, _RandomParts
from ferrum.load.tree import decoder
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Compositions, Step
from ferrum.tensor.ops import Tensor, host_dtype
from ferrum.tensor.weights import Dense

TINY = ModelConfig("llama", 768, 256, 512, 2, 4, 2, 64, 256, 1e-5, RopeConfig(10000.0, 64))
"""For a dry run."""


class Resident(CupyOps):
    """Arrays of the device are taken as they are. `eager`: no step is captured."""

    eager = False

    def asarray(self, values: Any, dtype: str) -> Tensor:
        on_device = not isinstance(values, (np.ndarray, np.generic, list, tuple, int, float))
        return values if on_device else super().asarray(values, dtype)

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        return Compositions.run_step(self, step, batch) if self.eager else super().run_step(step, batch)


class _OnDevice:
    """What `_RandomParts` makes matrices with."""

    def __init__(self, device: Device, dtype: str, on_gpu: bool) -> None:
        self._device, self._dtype = device, host_dtype(dtype)
        if on_gpu:
            self._random: Any = device.xp.random.default_rng(0)
        else:
            self._random = np.random.default_rng(0)

    def matrix(self, rows: int, columns: int) -> Dense:
        values = self._random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        made = values.astype(self._dtype)
        return Dense(made if not isinstance(made, np.ndarray) else self._device.upload(made))


def random_model(ops: CupyOps, config: ModelConfig, on_gpu: bool, dtype: str = "bfloat16") -> RandomModel:
    parts = _RandomParts(_OnDevice(ops.device, dtype, on_gpu), config, LLAMA, frozenset())  # type: ignore[arg-type]
    return RandomModel("random", config, decoder(config, parts))


def opened(ops: CupyOps, model: Any, sequences: int, tokens: int, kv_memory: int) -> LLM:
    gc.collect()  # an earlier engine's memory
    config = EngineConfig(
        max_num_seqs=max(sequences, 1),
        max_num_batched_tokens=max(tokens, 16),
        max_model_len=tokens,
        kv_memory=kv_memory,
        kv_dtype="bfloat16",
        compute=ops.compute,
        prefix_caching=False,
    )
    return LLM.from_loaded(model, ops, config)


def speed(llm: LLM, prompt_len: int, batch: int, gen_len: int, repeats: int) -> dict[str, float]:
    """Tokens per second of all sequences together, the best of some goes; the first one compiles and captures."""
    best = (0.0, 0.0)
    for seed in range(repeats + 1):
        found = measure(llm, prompts(llm, prompt_len, batch, seed), gen_len)
        llm.scheduler.manager.gc()
        if seed or not repeats:
            best = (max(best[0], found[0]), max(best[1], found[1]))
    return {"prefill_tok_s": best[0], "decode_tok_s": best[1]}


def weight_bytes(model: Any) -> int:
    """What a decoded token reads: all matrices but the table of embeddings, unless it is the head, too."""
    tied = model.params.head.linear.weight is model.params.embedding.table
    whole = sum(weight.data.nbytes for weight in model.params.weights())
    return int(whole - (0 if tied else model.params.embedding.table.data.nbytes))
