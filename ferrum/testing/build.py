"""An engine over a stub model, from a few numbers.

Owns: `StubSettings` and `stub_engine`, for tests that need a whole engine whose steps take microseconds. Refuses to
know: what is tested.
Specs: ENGINE-41. Next: `ferrum.testing.life`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.engine.speculation import Speculation
from ferrum.engine.timing import Clock
from ferrum.kv.eviction import make_policy
from ferrum.kv.manager import KvManager
from ferrum.sched.order import find_order
from ferrum.sched.scheduler import Limits, Scheduler
from ferrum.testing.flaky import FlakyPool, FlakyStore, Misfortune
from ferrum.testing.stub import NextToken, StubRunner, count_up
from ferrum.text.byte_tokenizer import ByteTokenizer


@dataclass(frozen=True)
class StubSettings:
    """The settings of a stub engine: memory in blocks, everything else as in `EngineConfig`."""

    blocks: int = 64
    host_blocks: int = 0
    block_size: int = 4
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 64
    max_model_len: int = 60
    max_waiting: int = 1000
    scheduler: str = "fifo"
    eviction: str = "lru"
    prefix_caching: bool = True
    swap_cost: float = 0.5
    misfortune: Misfortune = field(default_factory=Misfortune)


def stub_manager(settings: StubSettings) -> tuple[KvManager, FlakyStore]:
    """The memory manager alone, and the store below it."""
    misfortune = settings.misfortune
    store = FlakyStore(settings.blocks, settings.block_size, settings.host_blocks, misfortune)
    device, host = (
        FlakyPool(total, make_policy(settings.eviction), misfortune) if total else None
        for total in (settings.blocks, settings.host_blocks)
    )
    assert device is not None
    return KvManager(store, device, host, settings.block_size, prefix_caching=settings.prefix_caching), store


def stub_engine(
    settings: StubSettings,
    next_token: NextToken = count_up,
    observer: EngineObserver | None = None,
    clock: Clock = time.perf_counter,
    speculation: Speculation | None = None,
) -> Engine:
    """An engine whose model is `next_token`; its executor is a `StubRunner`."""
    manager, store = stub_manager(settings)
    limits = Limits(
        settings.max_num_seqs, settings.max_num_batched_tokens, settings.max_model_len, settings.max_waiting
    )
    scheduler = Scheduler(manager, limits, find_order(settings.scheduler), settings.swap_cost)
    runner = StubRunner(store, next_token)
    return Engine(runner, scheduler, ByteTokenizer, observer, clock, speculation=speculation)
