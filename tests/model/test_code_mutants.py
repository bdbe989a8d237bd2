"""Each feature removed from the code, or changed slightly, fails a golden.

`test_family_mutants` changes files; here the code is changed, one place at a time, and some golden must leave its
tolerance by far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine import setup
from ferrum.load import layout, params, tree
from ferrum.model import decoder, rope
from ferrum.tensor import experts
from ferrum.tensor.compositions import Compositions
from tests.model.families import FAMILIES, write_model
from tests.model.test_family_goldens import error, open_model

VISIBLE = 1e-4
"""Ten times the tolerance of the tests."""

Patch = Callable[[pytest.MonkeyPatch], None]


def composition(name: str, body: Callable[..., Any]) -> Patch:
    """A mutant in which `NumpyOps.name` computes `body(old, self, *arguments)`."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        old = getattr(Compositions, name)
        monkeypatch.setattr(
            NumpyOps, name, lambda self, *arguments, **more: body(old, self, *arguments, **more), raising=False
        )

    return patch


def part(name: str, **fields: Any) -> Patch:
    """A mutant in which every part of the class `name` in `ferrum.load.tree` has other values in some fields; a
    function computes the new value from the old one."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        kind = getattr(tree, name)

        def other(*arguments: Any, **more: Any) -> Any:
            made = kind(*arguments, **more)
            changed = {key: new(getattr(made, key)) if callable(new) else new for key, new in fields.items()}
            return replace(made, **changed)

        monkeypatch.setattr(tree, name, other)

    return patch


def function(module: Any, name: str, body: Callable[..., Any]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        old = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments, **more: body(old, *arguments, **more))

    return patch


def norm_after_rotation(old: Any, ops: Any, projections: Any, attention: Any, tables: Any, *rest: Any) -> Any:
    query, key, value = projections
    batch = rest[-1]

    def turned(x: Any, norm: Any) -> Any:
        heads = ops.rope(x.reshape(len(x), -1, attention.head_dim), tables, batch.positions)
        return ops.head_norm(heads.reshape(x.shape), norm, attention.head_dim)

    plain = replace(attention, query_norm=None, key_norm=None)
    return old(ops, (turned(query, attention.query_norm), turned(key, attention.key_norm), value), plain, None, *rest)


def sequential(old: Any, ops: Any, x: Any, layer: Any, *rest: Any) -> Any:
    return old(ops, x, replace(layer, stages=tuple((branch,) for stage in layer.stages for branch in stage)), *rest)


def positions_before(old: Any, ops: Any, embedding: Any, batch: Any) -> Any:
    return old(ops, embedding, replace(batch, positions=np.maximum(batch.positions - 1, 0)))


def weights_of_all(old: Any, ops: Any, x: Any, about: Any) -> Any:
    return old(ops, x, replace(about, normalised=False))


def next_best(old: Any, ops: Any, x: Any, about: Any) -> Any:
    weights, chosen = old(ops, x, replace(about, chosen=min(about.chosen + 1, len(about.experts))))
    return weights[:, 1:], chosen[:, 1:]


def shifted(kinds: Any) -> Any:
    return (*kinds[1:], kinds[0])


def shift_layers(old: Any, config: Any, parts: Any) -> Any:
    return old(replace(config, layer_kinds=shifted(config.kinds)), parts)


def one_rope(old: Any, ops: Any, ropes: Any, positions: int) -> Any:
    every = list(ropes)
    return old(ops, every[:1] * len(every), positions)


def without(**fields: Any) -> Callable[..., Any]:
    """A mutant in which norms have other values in some fields."""
    return lambda old, ops, x, norm: old(ops, x, norm and replace(norm, **fields))


def heads_together(old: Any, ops: Any, x: Any, norm: Any, dim: int) -> Any:
    return ops.normed(x, norm and replace(norm, weight=norm.weight.reshape(-1)))


def scaled_whole(old: Any, ops: Any, y: Any, residual: Any, after: Any = None, scale: float = 1.0) -> Any:
    return old(ops, y, residual, after) * np.float32(scale)


def gate_for_up(old: Any, ops: Any, gate: Any, up: Any, mlp: Any) -> Any:
    return old(ops, up, gate, mlp)


def stacked(old: Any, way: str, *rest: Any) -> Any:
    return old(layout.STACKED, *rest)


def in_order(old: Any, rows: int, config: Any) -> Any:
    return np.arange(rows)


def less_of_a_head(old: Any, config: Any, positions: int = 0) -> Any:
    return old(replace(config, rotary_dim=config.rotary_dim - 2), positions)


def of_a_short_context(old: Any, config: Any, positions: int = 0) -> Any:
    return old(config, 0)


MUTANTS: list[tuple[str, str, Patch]] = [
    ("no norm of queries", "qwen3-odd", part("Attention", query_norm=None)),
    ("no norm of keys", "gemma3-odd", part("Attention", key_norm=None)),
    ("heads normalised together", "stablelm-odd", composition("head_norm", heads_together)),
    ("norm of queries after the rotation", "qwen3-odd", composition("rope_attention", norm_after_rotation)),
    ("window one wider", "mistral-wide", part("Attention", window=lambda window: window and window + 1)),
    ("window one narrower", "gemma2-odd", part("Attention", window=lambda window: window and window - 1)),
    ("layers shifted by one", "gemma2-odd", function(params, "decoder", shift_layers)),
    ("layers without rotation shifted by one", "smollm3-odd", function(params, "decoder", shift_layers)),
    ("scores not capped", "gemma2-wide", part("Attention", softcap=None)),
    ("scores capped before they are scaled", "gemma2-wide", part("Attention", softcap=lambda cap: cap * 32**-0.5)),
    ("scores not scaled by the key", "granite-odd", part("Attention", scale=lambda scale: 12**-0.5)),
    ("sink ignored", "gpt-oss-odd", part("Attention", sinks=None)),
    ("sinks of other heads", "gpt-oss-odd", part("Attention", sinks=lambda sinks: np.roll(sinks, 1))),
    ("no norm after attention", "olmo2-odd", part("Branch", after=None)),
    ("no norm before a branch", "llama-odd", part("Branch", before=None)),
    ("residual not scaled", "granite-odd", part("Branch", scale=1.0)),
    ("residual scaled as a whole", "granite-odd", composition("residual_add", scaled_whole)),
    ("parallel branches one after the other", "phi-odd", function(decoder, "through", sequential)),
    ("embedding not scaled", "gemma-odd", part("Embedding", scale=1.0)),
    ("positions off by one", "gpt2-odd", composition("embedded", positions_before)),
    ("no positions", "gpt2-odd", part("Embedding", positions=None)),
    ("logits not scaled", "cohere-odd", part("Head", scale=1.0)),
    ("logits not capped", "gemma2-wide", part("Head", softcap=None)),
    ("norms centred", "llama-odd", composition("normed", without(centred=True))),
    ("norms not centred", "gpt2-odd", composition("normed", without(centred=False))),
    ("norms without bias", "phi-odd", composition("normed", without(bias=None))),
    ("gate and up exchanged", "llama-odd", composition("gated", gate_for_up)),
    ("another activation", "starcoder2-odd", part("PlainMlp", activation="gelu")),
    ("limit ignored", "gpt-oss-odd", part("GatedMlp", limit=None)),
    ("nothing added to up", "gpt-oss-odd", part("GatedMlp", up_offset=0.0)),
    ("weights of experts not normalised", "mixtral-odd", function(experts, "routed", weights_of_all)),
    ("the second best experts", "olmoe-odd", function(experts, "routed", next_best)),
    ("no shared expert", "qwen2-moe-odd", part("Experts", shared=None)),
    ("shared expert not weighted", "qwen2-moe-odd", part("Experts", shared_weight=None)),
    ("one expert more", "granite-moe-odd", part("Experts", chosen=lambda chosen: chosen + 1)),
    ("rows stacked that are grouped", "falcon-new", function(layout, "_shared_rows", stacked)),
    ("rows stacked that alternate", "gpt-oss-odd", function(layout, "_shared_rows", stacked)),
    ("interleaved rows left as they are", "cohere-odd", function(layout, "half_split_order", in_order)),
    ("interleaved norms left as they are", "cohere-odd", function(params, "half_split_order", in_order)),
    ("the whole head turned", "glm-odd", function(rope, "rope_frequencies", less_of_a_head)),
    ("queries that do not grow", "ministral3-wide", function(rope, "_growth", lambda old, *arguments: None)),
    ("no attention factor", "rope-longrope-long", function(rope, "attention_factor", lambda old, config: 1.0)),
    ("short factors in a long context", "rope-longrope-long", function(rope, "rope_frequencies", of_a_short_context)),
    ("a base that does not grow", "rope-dynamic", function(rope, "rope_frequencies", of_a_short_context)),
    ("one rope for all layers", "gemma3-odd", function(setup, "rotations", one_rope)),
]  # fmt: skip


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize(("what", "name", "patch"), MUTANTS, ids=[what for what, _, _ in MUTANTS])
def test_what_is_done_otherwise_shows(
    what: str, name: str, patch: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = FAMILIES[name]
    folder = write_model(golden, tmp_path / name)
    patch(monkeypatch)
    llm = open_model(golden, folder, "numpy", len(golden.tokens))
    assert error(llm.logits(golden.tokens), golden.logits) > VISIBLE
