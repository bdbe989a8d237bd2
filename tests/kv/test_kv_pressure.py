"""KV-40 to KV-42: pressure, counters, gc."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import DeviceError, InternalError, InvalidParameter, ResourceExhausted
from ferrum.kv.pressure import PressureGauge, PressureLevel
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.testing.audit import audit
from tests.kv.oracles import NAIVE_ORDERS, POLICY_NAMES, known, make_manager, remember, serve

TEXT = [0, 1, 1, 0, 1, 0, 0, 1]
NORMAL, WARNING, CRITICAL = PressureLevel

thresholds = st.floats(0, 1, exclude_min=True)
shares = st.floats(0, 1)


# ---- pressure
@pytest.mark.clause("KV-40")
@given(pair=st.tuples(thresholds, thresholds), observed=st.lists(shares, max_size=20))
@example(pair=(0.5, 0.5), observed=[0.5, 0.49])
@example(pair=(0.5, 1.0), observed=[1.0, 0.5, 0.75, 0.0])
def test_the_level_follows_the_thresholds_and_listeners_hear_of_changes_only(
    pair: tuple[float, float], observed: list[float]
) -> None:
    warning, critical = sorted(pair)
    gauge = PressureGauge(warning, critical)
    heard: list[list[PressureLevel]] = [[], []]
    gauge.subscribe(heard[0].append)
    levels = [NORMAL]
    for share in [*observed, warning, critical, 0.0]:  # on the thresholds too
        if share >= critical:
            levels.append(CRITICAL)
        else:
            levels.append(WARNING if share >= warning else NORMAL)
        gauge.observe(share)
        assert gauge.level is levels[-1]
    gauge.subscribe(heard[1].append)  # hears of what happens from now on
    gauge.observe(1.0)
    changes = [after for before, after in pairwise(levels) if before != after]
    assert heard == [[*changes, CRITICAL], [CRITICAL]]


@pytest.mark.clause("KV-40")
@pytest.mark.parametrize("pair", [(0, 0.5), (-0.1, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_that_mean_nothing_are_refused(pair: tuple[float, float]) -> None:
    says = f"warning and critical must be 0 < warning <= critical <= 1: {pair[0]}, {pair[1]}"
    with pytest.raises(InvalidParameter, match=f"^{re.escape(says)}$"):
        PressureGauge(*pair)


@pytest.mark.clause("KV-40")
def test_levels_can_be_compared() -> None:
    assert NORMAL < WARNING < CRITICAL
    assert PressureGauge().level is NORMAL


@pytest.mark.clause("KV-40")
def test_pressure_follows_the_blocks_that_are_held() -> None:
    gauge, heard = PressureGauge(0.5, 0.75), []
    manager, store = make_manager(8, 2, 8, gauge=gauge)
    gauge.subscribe(heard.append)
    first = serve(manager, store, TEXT[:6])
    assert heard == []
    second = serve(manager, store, [1, 1])
    assert heard == [WARNING]
    third = serve(manager, store, [1, 0, 1, 0])
    assert heard == [WARNING, CRITICAL]
    manager.swap_out(first, 6)  # three blocks are cached, and do not count
    assert heard == [WARNING, CRITICAL, NORMAL]
    manager.swap_in(first)
    assert heard[3:] == [CRITICAL]
    manager.close(third)
    manager.close(second)
    manager.close(first)
    assert heard[4:] == [WARNING, NORMAL]
    assert manager.open(first, TEXT[:6]) == 6
    assert manager.open(second, [1, 1]) == 2  # hits are held as well
    assert heard[6:] == [WARNING]


@pytest.mark.clause("KV-40")
def test_pressure_falls_when_a_copy_takes_the_place_of_a_block() -> None:
    gauge, heard = PressureGauge(0.75, 1.0), []
    manager, store = make_manager(4, 4, gauge=gauge)
    remember(manager, store, TEXT)
    table = manager.new_table()
    manager.open(table, TEXT)
    gauge.subscribe(heard.append)
    manager.reserve(table, 7, 8)  # a third block is held, until the copy is made
    assert (manager.device.held, gauge.level, heard) == (2, NORMAL, [WARNING, NORMAL])
    assert manager.counters().peak_held == 3


@pytest.mark.clause("KV-18", "KV-40")
def test_pressure_falls_when_a_move_fails() -> None:
    manager, store = make_manager(2, 4, 2, gauge=PressureGauge(0.9, 1.0))
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    manager.gc()
    store.faults.arm({1})
    with pytest.raises(DeviceError):
        manager.swap_in(table)
    assert manager.gauge.level is NORMAL
    manager.close(table)
    source, target = serve(manager, store, TEXT[:2]), manager.new_table()
    manager.fork(source, target, 2)
    store.faults.arm({1})
    with pytest.raises(DeviceError):
        manager.reserve(target, 2, 3)
    assert (manager.device.held, manager.gauge.level) == (1, NORMAL)


@pytest.mark.clause("KV-40")
def test_a_listener_that_fails_is_its_own_affair(caplog: pytest.LogCaptureFixture) -> None:
    gauge, heard = PressureGauge(0.5, 0.75), []
    manager, store = make_manager(4, 4, gauge=gauge)

    def fail(_: PressureLevel) -> None:
        raise RuntimeError("the listener's own affair")

    gauge.subscribe(fail)
    gauge.subscribe(heard.append)
    table = serve(manager, store, TEXT)
    assert (heard, gauge.level, table.capacity) == ([WARNING], WARNING, 8)
    assert "a pressure listener failed" in caplog.text and "the listener's own affair" in caplog.text
    audit(manager, [table])


# ---- counters
@pytest.mark.clause("KV-41")
def test_a_day_in_numbers() -> None:
    """Each counter, where one can count along. Blocks of two tokens, four on the device and three on the host."""
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
    heard: list[PressureLevel] = []
    manager.gauge.subscribe(heard.append)
    manager.reserve(tables[1], 1, 8)
    for resets in (1, 2, 3):
        manager.reset()
        assert manager.resets == resets
    assert manager.usage() == (TierUsage(4, 4, 0, 0), TierUsage(4, 4, 0, 0))
    assert (heard, known(manager, TEXT)) == ([CRITICAL, NORMAL], [])
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
