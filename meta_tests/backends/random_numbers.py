"""Faults in random numbers, which have to be the same bits on every backend."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Shape, Tensor
from ferrum.tensor.random import random_words, to_unit
from meta_tests.backends.fault import caught_by, permitted


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class NineRounds(NumpyOps):
    """Mixes nine times, where ten are published."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        with patch("ferrum.tensor.random.ROUNDS", 9):
            return super().uniform(shape, key, stream)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class OtherStream(NumpyOps):
    """Counts streams from 1."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return super().uniform(shape, key, stream + 1)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class StreamsOf32Bits(NumpyOps):
    """Forgets the upper half of a stream's number."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return super().uniform(shape, key, stream & 0xFFFFFFFF if stream >= 0 else stream)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class KeysHaveNoSign(NumpyOps):
    """Takes a negative key for a positive one."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return super().uniform(shape, abs(key), stream)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class SecondWord(NumpyOps):
    """Makes its numbers of the second of the four words."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return to_unit(self, random_words(self, math.prod(shape), key, stream)[1]).reshape(shape)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class FourWordsEach(NumpyOps):
    """Uses all four words of a counter, one after the other."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        words = np.stack(random_words(self, -(-math.prod(shape) // 4), key, stream), -1).reshape(-1)
        return to_unit(self, words[: math.prod(shape)]).reshape(shape)


@caught_by("test_uniform_counts_on")
class CountsWithinABlock(NumpyOps):
    """Counts threads of a block of 1024, and begins again in the next block."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        drawn = super().uniform((min(math.prod(shape), 1024),), key, stream)
        return np.resize(drawn, shape)


@caught_by("test_uniform_reaches_its_ends_and_not_1", key=16390493, first=0.9999999403953552)
class ReachesOne(NumpyOps):
    """Rounds up to 1, as a division of 32 bits by 2³² in float32 does."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        drawn = super().uniform(shape, key, stream)
        return np.where(drawn > 1 - 2.0**-23, np.float32(1), drawn)


@caught_by("test_uniform_reaches_its_ends_and_not_1", key=12121362, first=0.0)
class NeverZero(NumpyOps):
    """Adds half a step, so that 0 is never drawn."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        drawn = super().uniform(shape, key, stream)
        return np.where(drawn == 0, np.float32(2.0**-25), drawn)


@caught_by("test_uniform_is_a_function_of_key_stream_and_index")
class TwentyThreeBits(NumpyOps):
    """Fills the mantissa of a number between 1 and 2: a bit less."""

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        return (np.floor(super().uniform(shape, key, stream) * 2**23) / 2**23).astype(np.float32)


@caught_by("test_normal_is_box_muller_of_two_words")
class SineOfTheSecond(NumpyOps):
    """Takes the other number of Box and Muller's pair."""

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        first, second = (to_unit(self, word).astype(np.float64) for word in
                         random_words(self, math.prod(shape), key, stream)[:2])  # fmt: skip
        return (np.sqrt(-2 * np.log(1 - first)) * np.sin(2 * np.pi * second)).astype(np.float32).reshape(shape)


@permitted("OPS-22 grants the rounding of a float32", "test_normal_is_box_muller_of_two_words")
class NormalInSingle(NumpyOps):
    """Computes normal numbers in float32."""

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        first, second = (to_unit(self, word) for word in random_words(self, math.prod(shape), key, stream)[:2])
        radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first))
        return (radius * np.cos(np.float32(2 * np.pi) * second)).reshape(shape)


@caught_by("test_normal_is_box_muller_of_two_words")
class LogarithmOfTheUnit(NumpyOps):
    """Takes the logarithm of u, which may be 0, and not of 1 - u."""

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        first, second = (to_unit(self, word).astype(np.float64) for word in
                         random_words(self, math.prod(shape), key, stream)[:2])  # fmt: skip
        return (np.sqrt(-2 * np.log(np.maximum(first, 1e-300))) * np.cos(2 * np.pi * second)).astype(
            np.float32).reshape(shape)  # fmt: skip
