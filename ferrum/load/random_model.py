"""A model of random weights, made in seconds: speed can be measured without a download of gigabytes.

Owns: random bytes that are valid weights. A model of 8 billion parameters is written once, a piece at a time, and lies
in memory once. The product of a row with a normalised vector has variance 1, so that activations stay finite for any
number of layers. Refuses to know: the names of shapes, engines.
Specs: CLI-43, CLI-45. Next: `ferrum.api.errors`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tokenizers

from ferrum.config import ModelConfig
from ferrum.load.conversion import BLOCK_TYPES, FLOAT_TYPES, check_dtype
from ferrum.load.layout import Layout, linear_shapes
from ferrum.load.layouts_json import LLAMA
from ferrum.load.tree import decoder
from ferrum.model.params import DecoderParams
from ferrum.tensor.parts import Norm
from ferrum.tensor.weights import GROUP, BlockWeight, Dense, Linear, Weight
from ferrum.text.template_names import ChatTemplates
from ferrum.text.token_bytes import BYTE_ALPHABET
from ferrum.text.tokenizer import Tokenizer

DEFAULT_DTYPE = "q4_0"
"""The meaning of "auto" for a model without a file."""

PIECE = 1 << 24
"""Bytes of random numbers made at a time."""

_CODE_DEVIATION = {"q8_0": 73.9, "q4_0": 4.61, "q4_1": 4.61}
"""The standard deviation of the codes of a block with random bits: for n whole numbers in a row, √((n² - 1) / 12)."""
_MIDDLE_CODE = 7.5  # of q4_1; the minimum shifts it to zero


@dataclass(frozen=True, eq=False)
class RandomModel:
    """A model ready for an engine. Every token from 0 to 255 is a byte; the others have no text."""

    name: str
    config: ModelConfig
    params: DecoderParams

    @cached_property
    def tokenizer(self) -> Tokenizer:
        vocabulary = {symbol: byte for byte, symbol in enumerate(BYTE_ALPHABET)}
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        return Tokenizer(backend)

    @property
    def chat_templates(self) -> ChatTemplates:
        return ChatTemplates({})


def random_model(
    name: str,
    config: ModelConfig,
    dtype: str = "auto",
    seed: int = 0,
    layout: Layout = LLAMA,
    biases: Set[str] = frozenset(),
) -> RandomModel:
    """Equal arguments give equal weights. `layout` says which parts there are, `biases` which linears have a bias.
    Raises `InvalidParameter` for an unknown dtype."""
    check_dtype(dtype)
    generator = _Generator(DEFAULT_DTYPE if dtype == "auto" else dtype, seed)
    return RandomModel(name, config, decoder(config, _RandomParts(generator, config, layout, biases)))


class _RandomParts:
    """Parts of the shapes that a configuration gives, as `ferrum.load.tree.Parts`. Norms are ones, biases zeros."""

    def __init__(self, generator: _Generator, config: ModelConfig, layout: Layout, biases: Set[str]) -> None:
        self._generator, self._config, self._layout, self._biases = generator, config, layout, biases
        self._shapes = linear_shapes(config)
        self._table = generator.matrix(config.vocab_size, config.hidden_size)

    def table(self) -> Weight:
        return self._table

    def head(self) -> Linear:
        rows, columns = self._config.vocab_size, self._config.hidden_size
        weight = self._table if self._config.tie_embeddings else self._generator.matrix(rows, columns)
        return Linear(weight, self._bias("head", rows))

    def positions(self) -> Weight | None:
        if self._layout.positions is None:
            return None
        return self._generator.matrix(self._config.max_positions, self._config.hidden_size)

    def common(self) -> np.ndarray | None:
        return None if self._layout.token_types is None else np.zeros(self._config.hidden_size, np.float32)

    def embedding_norm(self) -> Norm | None:
        return None if self._layout.embedding_norm is None else self._ones(self._config.hidden_size)

    def linear(self, part: str, layer: int) -> Linear:
        rows, columns = self._shapes[part]
        return Linear(self._generator.matrix(rows, columns), self._bias(part, rows))

    def _bias(self, part: str, rows: int) -> np.ndarray | None:
        return np.zeros(rows, np.float32) if part in self._biases else None

    def experts(self, part: str, layer: int) -> list[Linear]:
        assert self._config.experts is not None
        return [self.linear(part, layer) for _ in range(self._config.experts.count)]

    def norm(self, part: str, layer: int) -> Norm | None:
        return self._ones(self._config.hidden_size) if part in self._layout.layer else None

    def head_norm(self, part: str, layer: int, heads: int) -> Norm | None:
        return self._ones(self._config.head_dim) if part in self._layout.layer else None

    def last_norm(self) -> Norm:
        return self._ones(self._config.hidden_size)

    def _ones(self, length: int) -> Norm:
        ones, centred = np.ones(length, np.float32), self._config.layer_norm
        return Norm(ones, self._config.norm_epsilon, 0 * ones if centred else None, centred)

    def sinks(self, layer: int) -> np.ndarray | None:
        return np.zeros(self._config.heads, np.float32) if "sinks" in self._layout.layer else None


class _Generator:
    """Random matrices of one type."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.dtype = dtype
        self._bits = np.random.SFC64(seed)

    def matrix(self, rows: int, columns: int) -> Weight:
        """[rows, columns] with mean 0 and variance 1 / columns. Rows that do not divide into groups of 32 cannot be
        stored in blocks and are float32."""
        deviation = columns**-0.5
        if self.dtype in FLOAT_TYPES or columns % GROUP:
            return Dense(self._floats(rows * columns, deviation).reshape(rows, columns))
        kind = BLOCK_TYPES[self.dtype]
        return kind(self._blocks(kind, rows * columns // GROUP, deviation).reshape(rows, -1))

    def _bytes(self, count: int) -> np.ndarray:
        """uint8 [count]"""
        data: np.ndarray = self._bits.random_raw(-(-count // 8)).view(np.uint8)[:count]
        return data

    def _floats(self, count: int, deviation: float) -> np.ndarray:
        """[count] numbers of the type, uniform between ±√3 deviations."""
        out = np.empty(count, FLOAT_TYPES.get(self.dtype, np.dtype(np.float32)))
        scale = np.float32(deviation * 3**0.5 / (1 << 15))
        for start in range(0, count, PIECE // 2):
            piece = out[start : start + PIECE // 2]
            piece[:] = self._bytes(2 * len(piece)).view(np.int16) * scale
        return out

    def _blocks(self, kind: type[BlockWeight], count: int, deviation: float) -> np.ndarray:
        """uint8 [blocks, bytes of a block]: random codes, and one scale for all blocks, with a random sign."""
        out = np.empty((count, kind.block_bytes), np.uint8)
        scale = np.float16(deviation / _CODE_DEVIATION[kind.kind])
        low, high = np.array([scale]).astype("<f2").view(np.uint8)
        minimum = np.array([-_MIDDLE_CODE * float(scale)]).astype("<f2").view(np.uint8)
        step = PIECE // kind.block_bytes
        for start in range(0, count, step):
            piece = out[start : start + step]
            piece[:] = self._bytes(piece.size).reshape(piece.shape)
            piece[:, 0] = low
            if kind.kind == "q4_1":
                piece[:, 1], piece[:, 2:4] = high, minimum
            else:
                # the mean code is half a step below zero; a random sign of the scale makes the mean of all blocks zero
                piece[:, 1] = piece[:, 1] & 0x80 | high
        return out
