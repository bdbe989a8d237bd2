"""Faults in keys and values of q8_0: scales, what a group cannot hold, queries that are rounded or not."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance.q8_oracle import rounded
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.kv_q8 import Q8KvLayer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from meta_tests.backends.fault import caught_by


@caught_by("test_the_write_rounds_to_the_bytes_of_the_definition")
class OneScaleForAHead(NumpyOps):
    """Stores the largest scale of a value for each of its groups."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        super().kv_write(layer, key, value, slots)
        if isinstance(layer, Q8KvLayer):
            block, offset = np.divmod(slots, layer.block_size)
            scales = layer.value_scales[block, :, :, offset]
            layer.value_scales[block, :, :, offset] = scales.max(-1, keepdims=True)


@caught_by("test_odd_numbers_are_rounded_alike_and_spoil_their_own_group")
class CutsOffWhatIsTooLarge(NumpyOps):
    """Stores the largest number that there is for one that a group cannot hold."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        if isinstance(layer, Q8KvLayer):
            most = 127 * 65504.0
            key, value = (np.clip(each, -most, most) for each in (key, value))
        super().kv_write(layer, key, value, slots)


@caught_by("test_attention_is_that_over_what_is_read_back")
class RoundsQueriesUnasked(NumpyOps):
    """Rounds queries to eight bits in the exact class too."""

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        if isinstance(layer, Q8KvLayer):
            query = rounded(query).astype(query.dtype)
        return super().paged_attention(query, attention, layer, batch)


@caught_by("test_in_the_int8_class_queries_are_rounded_like_activations")
class NeverRoundsQueries(NumpyOps):
    """Multiplies queries as they are in the int8 class."""

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        return NumpyOps(self.float_dtype, self.deterministic).paged_attention(query, attention, layer, batch)
