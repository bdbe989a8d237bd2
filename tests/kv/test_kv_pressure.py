"""KV-40 to KV-42: pressure, counters, gc."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import DeviceError, InternalError, ResourceExhausted
from ferrum.kv.statistics import KvCounters, PressureLevel, TierUsage
from ferrum.testing.audit import audit
from tests.kv.oracles import NAIVE_ORDERS, POLICY_NAMES, known, make_manager, remember, serve

TEXT = [0, 1, 1, 0, 1, 0, 0, 1]
NORMAL, WARNING, CRITICAL = PressureLevel


# ---- pressure
@pytest.mark.clause("KV-40")
@given(total=st.integers(1, 200), data=st.data())
@example(total=20, data=None)
def test_a_level_begins_at_its_threshold(total: int, data: st.DataObject | None) -> None:
    for held in range(total + 1) if data is None else [data.draw(st.integers(0, total), "held")]:
        usage = TierUsage(total, 0, total - held, held)
        percent = Fraction(100 * held, total)
        assert usage.pressure is (CRITICAL if percent >= 95 else WARNING if percent >= 80 else NORMAL)


@pytest.mark.clause("KV-40")
def test_pressure_follows_the_blocks_that_are_held() -> None:
    manager, store = make_manager(5, 2)

    def pressure() -> PressureLevel:
        return manager.usage()[0].pressure

    first, second = serve(manager, store, TEXT[:8]), serve(manager, store, [1, 1])
    assert pressure() is CRITICAL
    manager.close(second)
    assert pressure() is WARNING
    manager.close(first)
    assert pressure() is NORMAL  # cached blocks do not count
    assert manager.usage()[1].pressure is NORMAL  # there is no host tier


@pytest.mark.clause("KV-41")
def test_the_peak_counts_a_block_and_its_copy() -> None:
    manager, store = make_manager(4, 4)
    remember(manager, store, TEXT)
    table = manager.new_table()
    manager.open(table, TEXT)
    manager.reserve(table, 7, 8)  # a third block is held, until the copy is made
    assert (manager.device.held, manager.counters().peak_held) == (2, 3)


@pytest.mark.clause("KV-41")
def test_the_peak_counts_cached_blocks_that_are_held_again() -> None:
    manager, store = make_manager(8, 2, 8)
    for text in ([0, 0, 0, 1], [1, 0, 1, 1]):
        remember(manager, store, text)  # one after the other
    assert manager.counters().peak_held == 2
    tables = [manager.new_table() for _ in range(2)]
    for table, text in zip(tables, ([0, 0, 0, 1], [1, 0, 1, 1]), strict=True):
        manager.open(table, text)
    assert (manager.device.held, manager.counters().peak_held) == (4, 4)


@pytest.mark.clause("KV-41")
def test_the_peak_counts_blocks_that_come_back_from_the_host() -> None:
    manager, store = make_manager(8, 2, 8)
    swapped = serve(manager, store, [0, 0, 0, 1])
    manager.swap_out(swapped, 4)
    manager.close(serve(manager, store, [1, 0, 1]))
    other = serve(manager, store, [1, 1])
    assert (manager.device.held, manager.counters().peak_held) == (1, 2)
    manager.swap_in(swapped)  # both blocks are cached still: nothing is moved
    assert (manager.device.held, manager.counters().peak_held) == (3, 3)
    assert manager.counters().swapped_in == 0
    manager.close(other)


@pytest.mark.clause("KV-18")
def test_nothing_is_held_after_a_move_that_failed() -> None:
    manager, store = make_manager(2, 4, 2)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    manager.gc()
    store.faults.arm({1})
    with pytest.raises(DeviceError):
        manager.swap_in(table)
    assert manager.device.held == 0
    manager.close(table)
    source, target = serve(manager, store, TEXT[:2]), manager.new_table()
    manager.fork(source, target, 2)
    store.faults.arm({1})
    with pytest.raises(DeviceError):
        manager.reserve(target, 2, 3)
    assert manager.device.held == 1


# ---- counters
@pytest.mark.clause("KV-41")
def test_a_day_in_numbers() -> None:
    """Each counter after a few steps that a reader can count too. A block has two tokens; the device has four blocks
    and the host three."""
    manager, store = make_manager(4, 2, 3)
    expected = KvCounters()
    assert manager.counters() == expected
    remember(manager, store, TEXT)
    expected.queried_tokens, expected.peak_held = 8, 4
    assert manager.counters() == expected
    table = serve(manager, store, TEXT[:5])  # finds two blocks, takes one: the end of TEXT goes to the host
    expected.queried_tokens, expected.hit_tokens = 13, 4
    expected.evicted = expected.demoted = 1
    assert manager.counters() == expected
    manager.swap_out(table, 5)  # all three fill the host, which forgets that end
    expected.swapped_out, expected.dropped = 3, 1
    assert manager.counters() == expected
    manager.swap_in(table)  # two are still here
    expected.swapped_in = 1
    assert manager.counters() == expected
    target = manager.new_table()
    manager.fork(table, target, 5)
    manager.reserve(target, 5, 6)  # takes the place of the third block of TEXT: the host does not have it
    expected.copied, expected.evicted, expected.peak_held = 1, 2, 4
    expected.demoted, expected.dropped = 2, 1
    assert manager.counters() == expected
    for each in (table, target):
        manager.close(each)
    assert known(manager, TEXT) == ["device", "device", "host"]
    assert manager.open(table, TEXT) == 6
    expected.queried_tokens, expected.hit_tokens, expected.promoted = 21, 10, 1
    assert manager.counters() == expected
    manager.gc()  # nothing needed those blocks
    assert manager.counters() == expected
    audit(manager, [table])


@pytest.mark.clause("KV-41")
def test_moves_of_several_rounds_add_up() -> None:
    manager, store = make_manager(4, 4, 3, prefix_caching=False)
    table = serve(manager, store, TEXT)
    for moves in (1, 2, 3):
        manager.swap_out(table, 8)
        manager.swap_in(table)
        assert (manager.counters().swapped_out, manager.counters().swapped_in) == (2 * moves, 2 * moves)


@pytest.mark.clause("KV-06")
def test_without_a_host_tier_nothing_is_swapped() -> None:
    manager, store = make_manager(4, 4)
    table = serve(manager, store, TEXT)
    with pytest.raises(ResourceExhausted, match=r"^there is no host tier to swap to$"):
        manager.swap_out(table, 8)
    with pytest.raises(InternalError, match=r"^there is no host tier to swap from$"):
        manager.swap_in(table)
    audit(manager, [table])


@pytest.mark.clause("KV-41")
def test_counters_are_a_copy_and_usage_is_of_now() -> None:
    manager, store = make_manager(4, 4, 3)
    before = manager.counters()
    table = serve(manager, store, TEXT)
    remember(manager, store, [1, 1, 1, 1])
    assert before == KvCounters()
    manager.counters().evicted = 99
    assert manager.counters().evicted == 0
    assert manager.usage() == (TierUsage(4, 1, 1, 2), TierUsage(3, 3, 0, 0))
    manager.swap_out(table, 8)
    assert manager.usage() == (TierUsage(4, 1, 3, 0), TierUsage(3, 1, 0, 2))


@pytest.mark.clause("KV-18", "KV-41")
def test_what_is_refused_is_not_counted() -> None:
    manager, store = make_manager(2, 4, 1)
    table = serve(manager, store, TEXT)
    before = manager.counters()
    for operation in (lambda: manager.reserve(table, 8, 9), lambda: manager.swap_out(table, 8)):
        with pytest.raises(ResourceExhausted):
            operation()
    assert manager.counters() == before


# ---- gc
@pytest.mark.clause("KV-42")
@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("keep", [0, 1, 2, 3, 9])
def test_gc_takes_first_what_would_be_evicted_first(policy: str, keep: int) -> None:
    manager, store = make_manager(8, 2, 0, policy)
    for text in ([1, 1], [1, 0], [0, 1], [1, 1]):
        remember(manager, store, text)
    oracle, texts = NAIVE_ORDERS[policy](), ([1, 1], [1, 0], [0, 1])
    for block in range(3):
        oracle.add(block, bytes([block]))
    oracle.touch(0)
    order = [texts[oracle.victim()] for _ in texts]
    assert manager.gc(keep) == max(0, 3 - keep)
    kept = [text for text in order if known(manager, text)]
    assert kept == order[max(0, 3 - keep) :]
    assert manager.device.free == 8 - len(kept)


@pytest.mark.clause("KV-10", "KV-40")
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_after_a_reset_memory_is_as_new(policy: str) -> None:
    manager, store = make_manager(4, 2, 4, policy)
    tables = [serve(manager, store, TEXT[:5]), serve(manager, store, [1])]
    manager.swap_out(tables[0], 5)
    manager.reserve(tables[1], 1, 8)
    for resets in (1, 2, 3):
        manager.reset()
        assert manager.resets == resets
    assert manager.usage() == (TierUsage(4, 4, 0, 0), TierUsage(4, 4, 0, 0))
    assert known(manager, TEXT) == []
    remember(manager, store, TEXT)
    remember(manager, store, [1] * 8)
    assert known(manager, TEXT) == ["host"] * 4


@pytest.mark.clause("KV-42")
def test_gc_leaves_alone_what_is_held_on_either_tier() -> None:
    manager, store = make_manager(8, 2, 8)
    remember(manager, store, TEXT)
    first, second = serve(manager, store, TEXT[:5]), serve(manager, store, [1, 1, 1])
    manager.swap_out(second, 3)
    blocks = first.blocks[:], second.host_blocks[:]
    assert manager.usage() == (TierUsage(8, 2, 3, 3), TierUsage(8, 6, 0, 2))
    assert manager.gc() == 3
    assert (first.blocks, second.host_blocks) == blocks
    assert known(manager, TEXT) == ["device"] * 2 and known(manager, [1, 1]) == ["host"]
    manager.close(second)
    assert manager.gc(1) == 0
    assert manager.gc() == 1  # the full block of the second, on the host
    audit(manager, [first, second])
