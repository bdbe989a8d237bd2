"""KV-17 to KV-19, KV-24, KV-25, KV-41, KV-42: blocks that leave the device or the host, in fixed sequences of steps."""

from __future__ import annotations

import pytest

from ferrum.errors import DeviceError, InternalError, ResourceExhausted
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.kv.prefix import PrefixChain
from ferrum.kv.statistics import TierUsage
from ferrum.testing.audit import audit
from tests.kv.oracles import (
    POLICY_NAMES,
    codes,
    compute,
    held_by,
    known,
    make_manager,
    remember,
    serve,
)

TEXT = [0, 1, 1, 0, 1, 0, 0, 1]
OTHER = [1, 1, 1, 0, 0, 0, 1, 1]


def counted(manager: KvManager) -> dict[str, int]:
    """The counters of blocks that are not zero."""
    counters = manager.counters()
    counts = {name: getattr(counters, name) for name in counters.__slots__}
    leave_out = ("queried_tokens", "hit_tokens", "peak_held")
    return {name: count for name, count in counts.items() if count and name not in leave_out}


# ---- preemption by swapping
@pytest.mark.clause("KV-17", "KV-41")
@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("length", [5, 8])
def test_what_comes_back_is_what_left_whatever_happened_in_between(length: int, caching: bool) -> None:
    manager, store = make_manager(2, 4, 4, prefix_caching=caching)
    table = serve(manager, store, TEXT[:length])
    manager.swap_out(table, length)
    assert (table.blocks, manager.device.held) == ([], 0)
    assert held_by(store, table, length) == codes(TEXT[:length])
    remember(manager, store, OTHER)  # takes all of the device
    manager.swap_in(table)
    assert held_by(store, table, length) == codes(TEXT[:length])
    assert (table.host_blocks, table.recorded, table.writable_until) == ([], length // 4, 0)
    counters = manager.counters()
    assert (counters.swapped_out, counters.swapped_in) == (2, 2)
    audit(manager, [table])


@pytest.mark.clause("KV-17", "KV-32")
def test_a_sequence_that_was_swapped_goes_on_where_it_was() -> None:
    manager, store = make_manager(4, 4, 4)
    table = serve(manager, store, TEXT[:6])
    manager.swap_out(table, 6)
    manager.gc()
    manager.swap_in(table)
    compute(manager, store, table, [*TEXT, 0], 6)
    assert held_by(store, table, 9) == codes([*TEXT, 0])
    manager.close(table)
    assert known(manager, TEXT) == ["device"] * 2


@pytest.mark.clause("KV-17", "KV-41")
def test_what_the_other_tier_has_is_not_moved_again() -> None:
    manager, store = make_manager(4, 4, 4)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    manager.swap_in(table)  # the device had it cached
    manager.swap_out(table, 8)  # and the host
    assert (store.moved_out, store.moved_in) == (2, 0)
    assert counted(manager) == {"swapped_out": 2}
    assert held_by(store, table, 8) == codes(TEXT)


@pytest.mark.clause("KV-17")
def test_only_what_is_computed_is_moved() -> None:
    manager, store = make_manager(4, 4, 1)
    table = serve(manager, store, TEXT[:3])
    manager.reserve(table, 3, 16)
    manager.swap_out(table, 3)
    assert (len(table.host_blocks), manager.device.held) == (1, 0)
    assert held_by(store, table, 3) == codes(TEXT[:3])


@pytest.mark.clause("KV-18")
@pytest.mark.parametrize(("place", "error"), [(0, ResourceExhausted), (1, DeviceError)])
def test_a_swap_that_fails_half_way_can_be_tried_again(place: int, error: type[Exception]) -> None:
    manager, store = make_manager(4, 4, 4)
    table = serve(manager, store, TEXT[:7])
    blocks = table.blocks[:]
    store.faults.arm({place})
    with pytest.raises(error):
        manager.swap_out(table, 7)
    assert (table.blocks, table.host_blocks, table.recorded, manager.host and manager.host.held) == (blocks, [], 1, 0)
    audit(manager, [table])
    store.faults.arm(set())
    manager.swap_out(table, 7)
    manager.gc()
    kept = table.host_blocks[:]
    store.faults.arm({place})
    with pytest.raises(error):
        manager.swap_in(table)
    assert (table.blocks, table.host_blocks, manager.device.held) == ([], kept, 0)
    assert held_by(store, table, 7) == codes(TEXT, 0, 7)
    audit(manager, [table])
    store.faults.arm(set())
    manager.swap_in(table)
    assert held_by(store, table, 7) == codes(TEXT, 0, 7)
    assert manager.counters().failed_moves == 2 * place  # a tier without room is not one that fails


@pytest.mark.clause("KV-18")
def test_where_there_is_no_room_nothing_is_swapped() -> None:
    manager, store = make_manager(4, 4, 1)
    table = serve(manager, store, TEXT)
    with pytest.raises(ResourceExhausted):
        manager.swap_out(table, 8)
    assert held_by(store, table, 8) == codes(TEXT)
    manager, store = make_manager(2, 4, 2)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    other = serve(manager, store, OTHER)
    with pytest.raises(ResourceExhausted):
        manager.swap_in(table)
    assert held_by(store, table, 8) == codes(TEXT)
    audit(manager, [table, other])


@pytest.mark.clause("KV-18")
def test_without_a_host_tier_there_is_no_swapping() -> None:
    manager, store = make_manager(4, 4)
    table = serve(manager, store, TEXT)
    with pytest.raises(ResourceExhausted):
        manager.swap_out(table, 8)
    with pytest.raises(InternalError):
        manager.swap_in(table)
    assert held_by(store, table, 8) == codes(TEXT)
    assert manager.usage()[1] == TierUsage(0, 0, 0, 0)


@pytest.mark.clause("KV-19")
def test_a_table_can_be_closed_on_either_tier() -> None:
    manager, store = make_manager(4, 4, 4)
    first, second = serve(manager, store, TEXT), serve(manager, store, TEXT[:6])
    manager.swap_out(second, 6)
    for table in (first, second, second):
        manager.close(table)
        assert (table.blocks, table.host_blocks) == ([], [])
    assert [tier.held for tier in manager.usage()] == [0, 0]


# ---- what is evicted
@pytest.mark.clause("KV-24", "KV-41")
def test_what_is_evicted_waits_on_the_host_and_comes_back() -> None:
    manager, store = make_manager(2, 4, 4)
    remember(manager, store, TEXT)
    remember(manager, store, OTHER)
    assert known(manager, TEXT) == ["host"] * 2
    assert counted(manager) == {"evicted": 2, "demoted": 2}
    table = manager.new_table()
    assert manager.open(table, TEXT) == 8
    assert held_by(store, table, 8) == codes(TEXT)
    assert counted(manager) == {"evicted": 4, "demoted": 4, "promoted": 2}
    assert known(manager, TEXT) == ["device"] * 2 and known(manager, OTHER) == ["host"] * 2
    audit(manager, [table])


@pytest.mark.clause("KV-24", "KV-25", "KV-41")
def test_a_host_with_little_room_keeps_the_beginning() -> None:
    manager, store = make_manager(2, 4, 1)
    remember(manager, store, TEXT)
    remember(manager, store, OTHER)
    assert known(manager, TEXT) == ["host"]
    assert counted(manager) == {"evicted": 2, "demoted": 1}
    remember(manager, store, TEXT)  # promotes the one; the other tier forgets it for the beginning of OTHER
    assert known(manager, OTHER) == ["host"]
    assert counted(manager) == {"evicted": 4, "demoted": 2, "promoted": 1, "dropped": 1}


@pytest.mark.clause("KV-24", "KV-41")
def test_what_the_host_has_is_not_demoted_again() -> None:
    manager, store = make_manager(2, 4, 3)
    for text in (TEXT, OTHER[:4]):  # the end of TEXT goes to the host
        remember(manager, store, text)
    table = manager.new_table()
    manager.open(table, TEXT)  # and comes back, and OTHER goes
    manager.close(table)
    assert (known(manager, TEXT), known(manager, OTHER[:4])) == (["device"] * 2, ["host"])
    remember(manager, store, [1, 0])  # the end goes again
    assert known(manager, TEXT) == ["device", "host"]
    assert counted(manager) == {"evicted": 3, "demoted": 2, "promoted": 1}
    assert store.moved_out == 2


@pytest.mark.clause("KV-24")
def test_swapped_sequences_are_not_pushed_out_of_the_host() -> None:
    manager, store = make_manager(2, 4, 2)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    remember(manager, store, OTHER)
    remember(manager, store, [1] * 8)
    assert known(manager, OTHER) == []  # evicted, and there was no room
    assert counted(manager)["evicted"] == 4 and "demoted" not in counted(manager)
    assert held_by(store, table, 8) == codes(TEXT)


@pytest.mark.clause("KV-18", "KV-24", "KV-41")
@pytest.mark.parametrize(("place", "counts"), [(1, {"evicted": 2}), (2, {"evicted": 2, "failed_moves": 1})])
def test_a_demotion_that_fails_loses_the_cache_and_nothing_else(place: int, counts: dict[str, int]) -> None:
    manager, store = make_manager(2, 4, 2)
    remember(manager, store, TEXT)
    store.faults.arm({place})  # 0 is the allocation for which room is made
    table = manager.new_table()
    manager.reserve(table, 0, 8)
    assert len(table.blocks) == 2
    assert (known(manager, TEXT), manager.host and manager.host.free) == ([], 2)
    assert counted(manager) == counts
    audit(manager, [table])


@pytest.mark.clause("KV-24", "KV-32")
@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_a_hit_on_the_host_survives_the_room_that_is_made_for_it(policy: str) -> None:
    """The hit fills the host. Room on the device is made by moving other blocks to the host."""
    manager, store = make_manager(1, 4, 1, policy)
    remember(manager, store, TEXT[:4])
    remember(manager, store, OTHER[:4])
    assert (known(manager, TEXT[:4]), known(manager, OTHER[:4])) == (["host"], ["device"])
    table = manager.new_table()
    assert manager.open(table, TEXT[:4]) == 4
    assert held_by(store, table, 4) == codes(TEXT[:4])
    audit(manager, [table])


@pytest.mark.clause("KV-24", "KV-32")
def test_a_run_goes_from_tier_to_tier() -> None:
    manager, store = make_manager(4, 2, 4)
    remember(manager, store, TEXT)
    hits = manager.find(manager.new_table(), TEXT)
    others = [hit.block for hit in hits[::2] if hit.block is not None]
    for block in others:
        manager.device.share(block)
    remember(manager, store, OTHER[:3])  # takes the second block and the last
    manager.device.release(others)
    assert known(manager, TEXT) == ["device", "host"] * 2
    table = manager.new_table()
    assert manager.open(table, TEXT) == 8
    assert held_by(store, table, 8) == codes(TEXT)
    assert manager.counters().promoted == 2
    audit(manager, [table])


@pytest.mark.clause("KV-18", "KV-32", "KV-41")
@pytest.mark.parametrize("place", [0, 1])  # the allocation, the move
def test_where_the_host_does_not_answer_the_prefix_ends(place: int) -> None:
    manager, store = make_manager(4, 4, 4)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    manager.device.evict(1)  # the second block: its place is on the host now
    manager.close(table)
    assert known(manager, TEXT) == ["device", "host"]
    store.faults.arm({place})
    assert manager.open(table, TEXT) == 4
    assert held_by(store, table, 4) == codes(TEXT[:4])
    assert (table.recorded, manager.counters().failed_moves, manager.counters().promoted) == (1, place, 0)
    assert known(manager, TEXT) == ["device", "host"]  # a later call may succeed
    audit(manager, [table])


@pytest.mark.clause("KV-18", "KV-32")
def test_a_prefix_is_not_brought_back_where_there_is_no_room() -> None:
    manager, store = make_manager(2, 4, 2)
    remember(manager, store, TEXT)
    other = serve(manager, store, OTHER)
    table = manager.new_table()
    assert manager.open(table, TEXT) == 0
    assert (table.blocks, known(manager, TEXT)) == ([], ["host"] * 2)
    audit(manager, [other])


# ---- the order in which a prefix is lost
def loses_its_end_first(pool: BlockPool | None, text: list[int]) -> bool:
    """True if the cached blocks are a prefix of the text, and are evicted from its end."""
    assert pool is not None
    chain = PrefixChain(b"root", 2)
    victims = [victim.digest for victim in pool.evict(pool.cached)]
    return len(victims) > 1 and victims[::-1] == [chain.digest(index, text) for index in range(len(victims))]


@pytest.mark.clause("KV-25")
@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("again", [[], [TEXT], [TEXT[:5]], [TEXT[:5], [*TEXT, 1]], [TEXT[:2]]])
def test_a_prefix_loses_its_end_first_found_again_or_not(policy: str, again: list[list[int]]) -> None:
    manager, store = make_manager(8, 2, 0, policy)
    for text in (TEXT, *again):
        remember(manager, store, text)
    assert loses_its_end_first(manager.device, TEXT)


@pytest.mark.clause("KV-25")
def test_a_prefix_loses_its_end_first_on_the_host() -> None:
    manager, store = make_manager(4, 2, 8)
    remember(manager, store, TEXT)
    table = manager.new_table()
    for start, end in ((0, 2), (2, 8)):  # evicted in two goes
        manager.reserve(table, start, end)
    manager.close(table)
    assert manager.host is not None and manager.host.cached == 4
    assert manager.open(table, TEXT) == 8  # promotes all of it
    manager.close(table)
    assert loses_its_end_first(manager.host, TEXT)
    assert loses_its_end_first(manager.device, TEXT)


@pytest.mark.clause("KV-25")
def test_a_prefix_that_was_swapped_loses_its_end_first_on_both_tiers() -> None:
    manager, store = make_manager(8, 2, 8)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    assert loses_its_end_first(manager.device, TEXT)
    manager.swap_in(table)
    assert loses_its_end_first(manager.host, TEXT)
    manager.swap_out(table, 8)
    manager.close(table)
    assert loses_its_end_first(manager.host, TEXT)


@pytest.mark.clause("KV-18", "KV-25")
def test_a_prefix_that_could_not_be_brought_back_loses_its_end_first() -> None:
    manager, store = make_manager(8, 2, 8)
    table = serve(manager, store, TEXT[:7])  # three blocks stay cached, the half one is on the host only
    manager.swap_out(table, 7)
    store.faults.arm({1})
    with pytest.raises(DeviceError):
        manager.swap_in(table)
    assert loses_its_end_first(manager.device, TEXT)
    manager.close(table)
    assert loses_its_end_first(manager.host, TEXT)
