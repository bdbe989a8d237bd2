"""KV-48: a device that fails to move blocks, in its library's own words, costs no request its answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.errors import ResourceExhausted
from ferrum.kv.storage import KvStorage, block_bytes
from ferrum.tensor.ops import Tensor
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

ONE_BLOCK = block_bytes(tiny_config(), 4, "float32")
PARAMS = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, seed=1)
PROMPTS = [[n, *range(65, 85)] for n in range(6)]


class Unreliable(NumpyOps):
    """A backend in which about one of three downloads fails while blocks move to the host."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(deterministic=True)
        self._error, self._random = error, Random(0)
        self.moving, self.failures = False, 0

    def to_numpy(self, x: Tensor) -> Any:
        if self.moving and self._random.random() < 0.4:
            self.failures += 1
            raise self._error("an illegal memory access was encountered")
        return super().to_numpy(x)


def answers(ops: NumpyOps, **engine: Any) -> list[tuple[int, ...]]:
    config = tiny_config()
    model = TinyModel(config, tiny_params(config), ByteTokenizer())
    llm = LLM.from_loaded(model, ops, EngineConfig(**{"block_size": 4, **engine}))
    found = [completion.token_ids for completion in llm.generate(PROMPTS, PARAMS)]
    if engine:
        assert llm.stats().kv.failed_moves
        assert not llm.stats().device.held and not llm.stats().host.held
    return found


@pytest.mark.clause("KV-48")
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, ResourceExhausted])
def test_failed_moves_to_the_host_leave_every_answer_complete(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, swap_out = Unreliable(error), KvStorage.swap_out

    def moved(storage: KvStorage, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        ops.moving = True
        try:
            swap_out(storage, blocks, host_blocks)
        finally:
            ops.moving = False

    monkeypatch.setattr(KvStorage, "swap_out", moved)
    small = {"kv_memory": 16 * ONE_BLOCK, "host_kv_memory": 60 * ONE_BLOCK, "max_model_len": 48}
    assert answers(ops, **small) == answers(NumpyOps(deterministic=True))
    assert ops.failures > 3
