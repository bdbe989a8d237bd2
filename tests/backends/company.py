"""Texts computed in random chunks and blocks beside random other texts, in memory that is NaN until it is written.

`check` is the property of deterministic mode: in any sequence of steps, the logits of a text have the bits that they
have if the text is computed alone in one step. Engine, scheduler and pool are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

import numpy as np

from ferrum.config import ModelConfig
from ferrum.model.decoder import forward
from ferrum.model.params import DecoderParams, Layer
from ferrum.model.rope import rotations
from ferrum.tensor import parts
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.kv_q8 import new_layer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Experts, GatedMlp
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Linear, Weight

BLOCK_SIZES = (1, 2, 3, 8, 16, 32)


class Model:
    """A model on a backend, without memory for keys and values."""

    def __init__(self, ops: TensorOps, config: ModelConfig, params: DecoderParams, kv_dtype: str | None = None) -> None:
        self.ops, self.config, self.params = ops, config, params.to(ops)
        self.rotations = rotations(ops, (layer.rope for layer in params.layers), config.max_positions)
        self.kv_dtype = kv_dtype or ops.float_dtype


@dataclass(eq=False)
class Text:
    """One sequence: its blocks, how many of its tokens are computed, and the bits of its logits by position."""

    token_ids: Sequence[int]
    table: list[int]
    done: int = 0
    rows: dict[int, bytes] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return len(self.token_ids) - self.done


@dataclass(frozen=True)
class Part:
    """The share of a text in a step: its next `count` tokens, and for which of them logits are computed."""

    text: Text
    count: int
    wanted: list[int]


class Session:
    """Several texts and the memory that they share."""

    def __init__(self, model: Model, texts: Sequence[Sequence[int]], block_size: int, random: Random | None) -> None:
        """`random` shuffles the blocks, some of which belong to no sequence. None: blocks are in order."""
        self.model, self.block_size = model, block_size
        needed = [-(-len(text) // block_size) for text in texts]
        order = list(range(sum(needed) + (random.randint(0, 3) if random else 0)))
        if random:
            random.shuffle(order)
        ends = np.cumsum(needed)
        self.texts = [Text(t, order[end - n : end]) for t, n, end in zip(texts, needed, ends, strict=True)]
        self.layers = [self._layer(len(order)) for _ in range(model.config.layers)]

    def _layer(self, blocks: int) -> KvLayer:
        config, ops = self.model.config, self.model.ops

        def poison(shape: tuple[int, ...], dtype: str) -> Tensor:
            return ops.full(shape, 77 if dtype == "int8" else float("nan"), dtype)

        return new_layer(poison, self.model.kv_dtype, blocks, config.kv_heads, config.head_dim, self.block_size)

    def __call__(self, ops: TensorOps, batch: StepBatch) -> Tensor:
        model = self.model
        return forward(ops, model.params, model.rotations, self.layers, batch)

    def run(self, parts: Sequence[Part], *, replay: bool) -> None:
        """Runs one step. `replay`: the backend may record steps, and replay recorded ones."""
        batch, ops = self._pack(parts), self.model.ops
        logits = ops.to_numpy(ops.run_step(self, batch) if replay else self(ops, batch))
        assert logits.shape == (sum(len(part.wanted) for part in parts), self.model.config.vocab_size)
        assert np.isfinite(logits).all()
        rows = iter(logits)
        for part in parts:
            part.text.rows |= {part.text.done + place: next(rows).tobytes() for place in part.wanted}
            part.text.done += part.count

    def _pack(self, parts: Sequence[Part]) -> StepBatch:
        tables = np.zeros((len(parts), max(len(part.text.table) for part in parts)), np.int32)
        token_ids: list[int] = []
        positions, slots, starts, contexts, rows = [], [], [0], [], []
        for table, part in zip(tables, parts, strict=True):
            text, end = part.text, part.text.done + part.count
            table[: len(text.table)] = text.table
            rows += [len(token_ids) + place for place in part.wanted]
            token_ids += text.token_ids[text.done : end]
            positions += range(text.done, end)
            slots += [self._slot(text, position) for position in range(text.done, end)]
            starts.append(len(token_ids))
            contexts.append(end)
        fields = (token_ids, positions, slots, starts, contexts, tables, rows)
        tensors = (self.model.ops.asarray(np.array(values, np.int32), "int32") for values in fields)
        return StepBatch(*tensors, starts=starts, contexts=contexts)

    def _slot(self, text: Text, position: int) -> int:
        return text.table[position // self.block_size] * self.block_size + position % self.block_size


def alone(model: Model, text: Sequence[int]) -> dict[int, bytes]:
    """The bits of every row of one text, computed in one step with no other, in blocks of 16."""
    session = Session(model, [text], 16, None)
    session.run([Part(session.texts[0], len(text), list(range(len(text))))], replay=False)
    return session.texts[0].rows


def in_company(model: Model, texts: Sequence[Sequence[int]], random: Random, sizes: Sequence[int]) -> list[Text]:
    """Computes all texts, in chunks of these sizes, in steps with random other texts."""
    session = Session(model, texts, random.choice(BLOCK_SIZES), random)
    while pending := [text for text in session.texts if text.left]:
        chosen = random.sample(pending, random.randint(1, len(pending)))
        counts = [min(random.choice(sizes), text.left) for text in chosen]
        parts = [Part(text, count, wanted(random, count)) for text, count in zip(chosen, counts, strict=True)]
        session.run(parts, replay=random.random() < 0.75)
    return session.texts


def wanted(random: Random, count: int) -> list[int]:
    """Draws the tokens of a chunk for which logits are computed: all, the last one, none, or some."""
    every = list(range(count))
    return random.choice([every, every, every[-1:], [], sorted(random.sample(every, random.randint(0, count)))])


def check(texts: Sequence[Text], reference: Model) -> None:
    """Checks that every row of logits has the bits that it has if its text is computed alone."""
    for text in texts:
        expected = alone(reference, text.token_ids)
        different = [position for position, row in text.rows.items() if row != expected[position]]
        assert not different, f"of {len(text.token_ids)} tokens, other bits at {different}"


def rule(head_dim: int, scale: float, **more: Any) -> Attention:
    """The parameters of an attention without weights, for tests of the part between its products."""
    nothing = Linear(Dense(np.zeros((1, 1), np.float32)))
    return Attention(nothing, nothing, nothing, nothing, head_dim, scale, **more)


# ---- weights of any kind
def quantised(kind: type[Weight], shape: tuple[int, int], random: np.random.Generator) -> Weight:
    """A random matrix in 8 or 4 bits, whose values are about as large as those of `tiny_params`."""
    rows, groups = shape[0], shape[1] // 32
    size = shape[1] ** -0.5

    def halves(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, (rows, groups, 1)).astype(np.float16).view(np.uint8)

    def codes(count: int) -> np.ndarray:
        return random.integers(0, 256, (rows, groups, count), np.uint8)

    blocks = {
        Q8_0: lambda: [halves(0, size / 32), codes(32)],
        Q4_0: lambda: [halves(0, size / 2), codes(16)],
        Q4_1: lambda: [halves(0, size / 2), halves(-6 * size, 0), codes(16)],
    }
    return kind(np.concatenate(blocks[kind](), 2).reshape(rows, -1))


def random_experts(
    count: int, chosen: int, columns: int, middle: int, random: np.random.Generator, *, shared: bool = False,
    gate: bool = False,
) -> Experts:  # fmt: skip
    """A mixture of experts in float32. `shared`: it has an expert for all tokens; `gate`: which has a gate."""

    def linear(rows: int, columns: int) -> Linear:
        return Linear(Dense((columns**-0.5 * random.standard_normal((rows, columns))).astype(np.float32)))

    def mlp() -> GatedMlp:
        return GatedMlp(linear(middle, columns), linear(middle, columns), linear(columns, middle))

    return Experts(
        linear(count, columns), tuple(mlp() for _ in range(count)), chosen, shared=mlp() if shared else None,
        shared_weight=linear(1, columns) if gate else None,
    )  # fmt: skip


def with_experts(params: DecoderParams, middle: int) -> DecoderParams:
    """The same model with a mixture of experts in place of every MLP; the second one has a shared expert."""
    random = np.random.default_rng(1)

    def changed(layer: Layer, second: bool) -> Layer:
        attend, (feed,) = layer.stages
        assert isinstance(feed.body, GatedMlp)
        columns = feed.body.gate.weight.columns
        mixture = random_experts(6, 2, columns, middle, random, shared=second, gate=second)
        return replace(layer, stages=(attend, (replace(feed, body=mixture),)))

    return replace(params, layers=tuple(changed(layer, bool(i % 2)) for i, layer in enumerate(params.layers)))


def with_weights(params: DecoderParams, change: Callable[[Weight], Weight], *, biased: bool = False) -> DecoderParams:
    """The same model with every matrix changed. `biased`: every linear layer has a bias."""

    def changed(tree: Any) -> Any:
        match tree:
            case Linear(weight, bias):
                return Linear(change(weight), np.linspace(-0.1, 0.1, weight.rows, dtype=np.float32) if biased else bias)
            case Weight():
                return change(tree)
            case tuple():
                return tuple(map(changed, tree))
            case parts.Part():
                return replace(tree, **{each.name: changed(getattr(tree, each.name)) for each in fields(tree)})
        return tree

    return changed(params)
