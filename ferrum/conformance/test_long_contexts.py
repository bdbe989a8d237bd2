"""Properties of rotary embedding, the pool and attention at the sizes of real models.

Owns: the promise OPS-77 for attention: contexts of more than a thousand positions, chunks and batches of many
sequences, wide heads and groups, large blocks, slots and positions beyond 16 bits. One size for each property. Refuses
to know: how a kernel walks the blocks. Next: `ferrum.conformance.test_types`.
"""

from __future__ import annotations

import numpy as np
import pytest

from ferrum.conformance import oracles
from ferrum.conformance.harness import call_unchanged, check, host, variants
from ferrum.conformance.large import normal
from ferrum.conformance.paged import Rotation, placed_case
from ferrum.conformance.strategies import Layout, lay
from ferrum.conformance.test_attention import check_attention, check_kv_write, check_rope_attention
from ferrum.tensor.compositions import TensorOps

DECODES = tuple(range(1, 300, 7))  # 43 sequences

CASES = {
    "a decode far along": placed_case((1500,), (1,), block_size=64, kv_heads=2, group=8, head_dim=256),
    "a decode beyond 4096": placed_case((4099,), (1,), block_size=16, group=7, head_dim=64, kv_dtype="float16"),
    "two long decodes": placed_case((1025, 2049), (1, 1), block_size=128, kv_heads=4, group=4, head_dim=32),
    "a chunk far along": placed_case((1100,), (33,), block_size=128, kv_heads=8, group=4, head_dim=128),
    "a chunk beyond 4096": placed_case((4133,), (37,), block_size=32, group=2, head_dim=16, kv_dtype="bfloat16"),
    "a whole prompt": placed_case((1100,), (1100,), block_size=16, head_dim=32),
    "many sequences": placed_case(DECODES, (1,) * len(DECODES), group=16, head_dim=96),
    "more than a kernel records": placed_case(DECODES[:34] * 2, (1,) * 68, kv_heads=4, group=2, head_dim=112),
    "decodes beside chunks": placed_case((700, 33, 600, 1), (1, 33, 70, 1), block_size=64, kv_heads=5, group=6),
    "a wide head and a cap": placed_case((300,), (70,), kv_heads=3, group=5, head_dim=192, softcap=20.0),
    "as many heads as a large model": placed_case((130, 7), (1, 7), kv_heads=32, group=1, head_dim=128),
    "a long window": placed_case((2100, 1800), (1, 5), block_size=64, group=4, head_dim=64, window=1500),
    "a short window far along": placed_case((3000, 2500), (1, 40), kv_heads=2, group=8, window=128, sinking=True),
    "a text both ways": placed_case((520, 260), (520, 260), kv_heads=2, group=1, head_dim=64, causal=False),
    "a text both ways in a window": placed_case((400,), (400,), group=3, head_dim=64, window=130, causal=False),
}


@pytest.mark.clause("OPS-30", "OPS-31", "OPS-32", "OPS-33", "OPS-34", "OPS-69", "OPS-77")
@pytest.mark.parametrize("name", CASES)
def test_attention_at_real_sizes(ops: TensorOps, name: str) -> None:
    check_attention(ops, CASES[name], Layout.CONTIGUOUS)


FAR = {
    "an ordinary context": placed_case((1300, 40), (5, 40), block_size=64, kv_heads=2, group=8, head_dim=128),
    "a step of many tokens": placed_case((1040, 1000), (1030, 3), block_size=32, head_dim=16),
    "a position beyond 16 bits": placed_case((70001,), (1,), block_size=32, group=2, head_dim=16),
    "a window beyond 16 bits": placed_case((70001,), (2,), block_size=16, head_dim=16, window=100),
}


def turning(positions: int, half: int) -> Rotation:
    """The angles of a normal model, with cosines as float32 holds them, and queries that grow slowly."""
    angles = np.arange(positions)[:, None] * 10000.0 ** -(np.arange(half) / half)
    cosines, sines = (np.asarray(wave, np.float32).astype(np.float64) for wave in (np.cos(angles), np.sin(angles)))
    growth = (1 + np.log1p(np.arange(positions) // 8192) / 10).astype(np.float32).astype(np.float64)
    return Rotation(cosines, sines, growth)


@pytest.mark.clause("OPS-19", "OPS-77")
@pytest.mark.parametrize(("tokens", "heads", "head_dim", "half"), [(9, 3, 256, 64), (2051, 2, 16, 8), (5, 40, 128, 64)])
def test_rope_far_along(ops: TensorOps, tokens: int, heads: int, head_dim: int, half: int) -> None:
    rotation = turning(131072 if half == 8 else 40000, half)
    last = len(rotation.cosines) - 1
    positions = np.random.default_rng(0).integers(0, last + 1, tokens)
    positions[:4] = last, 0, 32768, last - 1
    x = normal(tokens, heads, head_dim)
    expected = oracles.rope(x, rotation.cosines[positions], rotation.sines[positions])
    check(ops, "rope", (lay(ops, x), rotation.place(ops), lay(ops, positions, dtype="int32")), expected)


@pytest.mark.clause("OPS-36", "OPS-77")
@pytest.mark.parametrize("name", FAR)
def test_rope_attention_far_along(ops: TensorOps, name: str) -> None:
    case = FAR[name]
    rotation = turning(max(case.contexts), case.head_dim // 2)
    for function in variants(ops, "rope_attention"):
        layer = case.layer(ops, with_new=False)
        flat = [p.reshape(case.tokens, -1) for p in (case.query(), case.fresh(1), case.fresh(2))]
        attended = call_unchanged(
            ops,
            lambda p, a, t, b, f=function, pool=layer: f(p, a, t, pool, b),
            (tuple(lay(ops, p) for p in flat), case.attention(ops), rotation.place(ops), case.batch(ops)),
        )
        check_rope_attention(ops, case, rotation, [None, None], layer, host(ops, attended))


WRITES = {
    "many tokens": placed_case((3000, 70), (2051, 70), block_size=16, kv_heads=3, head_dim=12),
    "large blocks": placed_case((600, 300), (257, 300), block_size=128, kv_heads=8, head_dim=128, kv_dtype="float16"),
    "wide heads": placed_case((40,), (33,), block_size=64, kv_heads=33, head_dim=256, kv_dtype="bfloat16"),
    "slots beyond 16 bits": placed_case((70001,), (300,), block_size=1, head_dim=2),
    "blocks of no power of two": placed_case((150, 97), (100, 1), block_size=96, kv_heads=2, head_dim=16),
    "the first slot of a block": placed_case((17,), (1,), block_size=16, kv_heads=2, head_dim=16),
    "blocks of one slot": placed_case((1040,), (1040,), block_size=1, kv_heads=2, head_dim=16, kv_dtype="float16"),
}


@pytest.mark.clause("OPS-35", "OPS-77")
@pytest.mark.parametrize("name", WRITES)
def test_kv_write_at_real_sizes(ops: TensorOps, name: str) -> None:
    check_kv_write(ops, WRITES[name], Layout.CONTIGUOUS)
