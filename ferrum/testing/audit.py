"""The books of the memory, compared with the block tables of all sequences.

Owns: `audit`, which state machines and the simulation call between operations. It counts references from the tables,
and compares them with what the pools record. Refuses to know: why a block is where it is.
Specs: KV-10 to KV-14. Next: `ferrum.testing.flaky`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ferrum.kv.block_table import BlockTable
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool


def audit(manager: KvManager, tables: Iterable[BlockTable]) -> None:
    """Raises AssertionError unless the references of every block are those of the tables, the numbers of blocks in all
    states add up, digests lead to their blocks and back, and no table has blocks on both tiers."""
    tables = list(tables)
    audit_tier(manager.device, Counter(block for table in tables for block in table.blocks))
    if manager.host is not None:
        audit_tier(manager.host, Counter(block for table in tables for block in table.host_blocks))
    for table in tables:
        assert not (table.blocks and table.host_blocks), "a table has blocks on both tiers"
        assert table.row.tolist() == table.blocks, "a table's row is not its blocks"
        assert len(set(table.blocks)) == len(table.blocks), "a block stands twice in a table"


def audit_tier(pool: BlockPool, references: Counter[int]) -> None:
    """The same for one tier, from the number of references to each block."""
    cached = 0
    for block in range(pool.total):
        count, digest = pool.references(block), pool.digest(block)
        assert count == references[block], f"block {block} has {references[block]} references, the pool says {count}"
        cached += not count and digest is not None
        assert digest is None or pool.lookup(digest) == block, f"block {block} is not found by its digest"
    assert pool.cached == cached, f"{cached} blocks are cached, the pool says {pool.cached}"
    assert pool.held == len(references), f"{len(references)} blocks are held, the pool says {pool.held}"
    assert pool.free + pool.cached + pool.held == pool.total
