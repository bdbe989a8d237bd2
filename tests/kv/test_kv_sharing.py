"""KV-11, KV-16, KV-18, KV-31 to KV-34: tables that have blocks in common, in fixed sequences of steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import DeviceError, InternalError, ResourceExhausted
from ferrum.testing.audit import audit
from tests.kv.oracles import codes, compute, digests_of, held_by, known, make_manager, remember, serve

TEXT = [0, 1, 1, 0, 1, 0, 0, 1]  # two blocks of four


@pytest.mark.clause("KV-32")
def test_a_preempted_text_finds_its_own_prefix_and_goes_on() -> None:
    """The table is opened again with more tokens than the prompt had: every count in it starts again."""
    manager, store = make_manager(6, 4)
    table = serve(manager, store, TEXT)
    longer = [*TEXT, 1, 1]
    compute(manager, store, table, longer, 8)
    manager.close(table)
    assert (table.recorded, table.writable_until, table.capacity) == (0, 0, 0)
    assert manager.open(table, longer) == 8
    longest = [*longer, 0, 0, 1, 0]
    compute(manager, store, table, longest, 8)
    assert held_by(store, table, 14) == codes(longest)
    assert known(manager, longest) == ["device"] * 3
    audit(manager, [table])


@pytest.mark.clause("KV-16", "KV-32")
@pytest.mark.parametrize("held", [True, False])
def test_a_prompt_that_is_all_cached_computes_its_last_token_in_a_copy(held: bool) -> None:
    manager, store = make_manager(6, 4)
    first = serve(manager, store, TEXT)
    blocks = first.blocks[:]
    if not held:
        manager.close(first)
    second = manager.new_table()
    assert manager.open(second, TEXT) == len(TEXT)  # all of it, and a step needs one token to compute
    assert second.blocks == blocks
    manager.reserve(second, 7, 8)
    assert second.blocks[0] == blocks[0] and second.blocks[1] != blocks[1]
    assert held_by(store, second, 7) == codes(TEXT, 0, 7)
    assert manager.device.writable(second.blocks[1])
    store.device.reshape(-1)[second.slot(7)] = -5  # no other table sees it
    assert store.device[blocks].reshape(-1).tolist() == codes(TEXT)
    assert manager.device.references(blocks[1]) == held
    assert digests_of(manager.device).keys() == {hit.digest for hit in manager.find(second, TEXT)}
    assert manager.counters().copied == 1
    audit(manager, [first, second])


@pytest.mark.clause("KV-16", "KV-41")
def test_a_copy_of_which_nothing_stays_is_not_made() -> None:
    manager, store = make_manager(4, 1)
    remember(manager, store, [0, 1])
    table = manager.new_table()
    assert manager.open(table, [0, 1]) == 2
    original = table.blocks[1]
    manager.reserve(table, 1, 2)
    assert table.blocks[1] != original
    assert (manager.counters().copied, store.copied) == (0, 0)


@pytest.mark.clause("KV-16")
def test_every_block_that_is_to_be_written_becomes_its_own() -> None:
    """The sequence computes more of a found prefix again than its last token, as scoring of a prompt does."""
    manager, store = make_manager(8, 2)
    first = serve(manager, store, TEXT[:6])
    table = manager.new_table()
    assert manager.open(table, TEXT[:6]) == 6
    manager.reserve(table, 3, 6)
    assert [block in first.blocks for block in table.blocks] == [True, False, False]
    assert held_by(store, table, 3) == codes(TEXT[:3])
    compute(manager, store, table, [*TEXT[:3], 1, 1, 1], 3)
    assert held_by(store, first, 6) == codes(TEXT[:6])
    assert manager.counters().copied == 1  # no position of the last block stays
    audit(manager, [first, table])


@pytest.mark.clause("KV-31", "KV-32")
@pytest.mark.parametrize("length", [4, 7, 8, 9])
def test_a_prompt_finds_its_full_blocks_and_no_more(length: int) -> None:
    manager, store = make_manager(8, 4)
    text = (TEXT + TEXT)[:length]
    remember(manager, store, text)
    table = manager.new_table()
    assert manager.open(table, text) == length // 4 * 4
    compute(manager, store, table, [*text, 0, 1, 0], min(table.capacity, length - 1))
    assert held_by(store, table, length + 3) == codes([*text, 0, 1, 0])


@pytest.mark.clause("KV-31")
def test_a_block_is_not_found_before_it_is_computed_to_its_end() -> None:
    manager, store = make_manager(6, 4)
    writer, reader = manager.new_table(), manager.new_table()
    manager.reserve(writer, 0, 8)
    assert manager.find(reader, TEXT) == []  # reserved, but not written
    store.device.reshape(-1)[writer.slots(0, 7)] = codes(TEXT, 0, 7)
    assert manager.find(reader, TEXT) == []  # written, but the step may still fail
    manager.record(writer, TEXT, 7)
    assert len(manager.find(reader, TEXT)) == 1  # the second block lacks a token
    store.device.reshape(-1)[writer.slot(7)] = codes(TEXT)[7]
    manager.record(writer, TEXT, 8)
    assert len(manager.find(reader, TEXT)) == 2


@pytest.mark.clause("KV-32")
def test_a_run_ends_where_a_block_is_missing() -> None:
    """A block after a missing one is cached, but is not found."""
    manager, store = make_manager(8, 1)
    table = serve(manager, store, [0, 1, 0])
    first, _, last = table.blocks
    for block in (first, last):
        manager.device.share(block)  # another table holds these two
    manager.close(table)
    assert known(manager, [0, 1, 0]) == ["device"] * 3
    assert manager.gc() == 1
    assert known(manager, [0, 1, 0]) == ["device"]
    assert manager.device.digest(last) is not None
    assert manager.open(table, [0, 1, 0]) == 1


@pytest.mark.clause("KV-33")
def test_two_tables_that_compute_the_same_keep_their_own() -> None:
    manager, store = make_manager(6, 4)
    first, second = manager.new_table(), manager.new_table()
    for table in (first, second):
        assert manager.open(table, TEXT) == 0
        manager.reserve(table, 0, 8)
        store.device.reshape(-1)[table.slots(0, 8)] = codes(TEXT)
    manager.record(first, TEXT, 8)
    manager.record(second, TEXT, 8)
    assert not set(first.blocks) & set(second.blocks)
    assert [hit.block for hit in manager.find(second, TEXT)] == first.blocks
    assert second.recorded == 2
    compute(manager, store, second, [*TEXT, 1], 8)
    manager.close(first)
    assert held_by(store, second, 9) == codes([*TEXT, 1])
    audit(manager, [second])
    manager.close(second)
    assert (manager.device.cached, manager.device.held) == (2, 0)  # the copies are not needed


@pytest.mark.clause("KV-34")
def test_without_prefix_caching_nothing_is_cached_or_found() -> None:
    manager, store = make_manager(6, 4, 6, prefix_caching=False)
    table = serve(manager, store, TEXT)
    assert manager.find(manager.new_table(), TEXT) == []
    manager.swap_out(table, 8)
    manager.swap_in(table)
    assert held_by(store, table, 8) == codes(TEXT)
    manager.close(table)
    assert (manager.device.free, manager.host and manager.host.free) == (6, 6)
    assert manager.open(table, TEXT) == 0
    assert manager.counters().queried_tokens == manager.counters().hit_tokens == 0


@pytest.mark.clause("KV-11", "KV-16")
def test_copies_of_a_prompt_part_where_they_differ() -> None:
    manager, store = make_manager(6, 4)
    source, target = serve(manager, store, TEXT[:6]), manager.new_table()
    manager.fork(source, target, 5)
    assert target.blocks == source.blocks
    assert [manager.device.references(block) for block in source.blocks] == [2, 2]
    assert (target.recorded, target.writable_until, source.writable_until) == (1, 0, 0)
    compute(manager, store, source, [*TEXT[:6], 0, 0], 6)
    compute(manager, store, target, [*TEXT[:5], 1, 1, 1], 5)
    assert source.blocks[0] == target.blocks[0] and source.blocks[1] != target.blocks[1]
    assert held_by(store, source, 8) == codes([*TEXT[:6], 0, 0])
    assert held_by(store, target, 8) == codes([*TEXT[:5], 1, 1, 1])
    assert manager.counters().copied == 1  # the second to write is alone by then
    audit(manager, [source, target])


@pytest.mark.clause("KV-16", "KV-31")
def test_a_fork_does_not_offer_what_only_its_source_has_computed() -> None:
    manager, store = make_manager(8, 4)
    source, target = serve(manager, store, TEXT[:7]), manager.new_table()
    manager.fork(source, target, 7)
    compute(manager, store, target, TEXT, 7)
    assert [hit.block for hit in manager.find(source, TEXT)] == target.blocks
    other = manager.new_table()
    manager.fork(source, other, 3)
    assert other.recorded == 0 and other.blocks == source.blocks[:1]


@pytest.mark.clause("KV-30")
def test_a_fork_goes_by_its_own_tokens_from_where_it_parts() -> None:
    manager, store = make_manager(8, 4)
    source, target, other = serve(manager, store, TEXT), manager.new_table(), [*TEXT[:4], 1, 1, 1, 1]
    manager.fork(source, target, 4)
    compute(manager, store, target, other, 4)
    assert [hit.block for hit in manager.find(manager.new_table(), TEXT)] == source.blocks
    assert [hit.block for hit in manager.find(manager.new_table(), other)] == target.blocks


@pytest.mark.clause("KV-06", "KV-18")
def test_what_cannot_be_forked_is_refused() -> None:
    manager, store = make_manager(8, 4)
    source, taken = serve(manager, store, TEXT), serve(manager, store, [1, 1, 1, 1])
    for target, positions in ((taken, 4), (manager.new_table(), 9)):
        before = target.blocks[:]
        with pytest.raises(InternalError, match=f"a table of 8 positions cannot be forked at {positions}"):
            manager.fork(source, target, positions)
        assert target.blocks == before
    audit(manager, [source, taken])


@pytest.mark.clause("KV-18")
@pytest.mark.parametrize(("place", "error"), [(0, ResourceExhausted), (1, DeviceError)])
def test_a_copy_that_fails_leaves_everything_in_place(place: int, error: type[Exception]) -> None:
    manager, store = make_manager(6, 4)
    source, target = serve(manager, store, TEXT[:6]), manager.new_table()
    manager.fork(source, target, 6)
    blocks = source.blocks[:]
    store.faults.arm({place})
    with pytest.raises(error):
        manager.reserve(target, 6, 12)
    store.faults.arm(set())
    assert (source.blocks, target.blocks, manager.device.held) == (blocks, blocks, 2)
    assert held_by(store, target, 6) == codes(TEXT, 0, 6)
    audit(manager, [source, target])
    manager.reserve(target, 6, 12)
    assert target.capacity == 12 and held_by(store, target, 6) == codes(TEXT, 0, 6)


@pytest.mark.clause("KV-02", "KV-18")
def test_blocks_that_are_missing_are_not_half_given() -> None:
    manager, store = make_manager(3, 4)
    table = serve(manager, store, TEXT[:5])
    with pytest.raises(ResourceExhausted):
        manager.reserve(table, 5, 16)
    assert (len(table.blocks), manager.device.free) == (2, 1)
    manager.reserve(table, 5, 12)
    assert len(table.blocks) == 3


@pytest.mark.clause("KV-11", "KV-18")
def test_tables_grow_together_or_not_at_all() -> None:
    manager, store = make_manager(5, 4)
    tables = [serve(manager, store, text) for text in (TEXT, [1] * 4)]
    tables.append(serve(manager, store, [0] * 4))
    had = [table.blocks[:] for table in tables]
    manager.grow(tables)  # three, where there is room for one
    assert [table.blocks for table in tables] == had
    manager.close(tables.pop())  # its block can be had again
    manager.grow(tables)
    assert [table.blocks[:-1] for table in tables] == had[:2]
    assert [table.writable_until for table in tables] == [12, 8]
    assert all(manager.device.writable(table.blocks[-1]) for table in tables)
    audit(manager, tables)


@pytest.mark.clause("KV-32")
@pytest.mark.parametrize(
    ("held", "free", "positions"),
    [
        (2, 0, 8),  # all of it is held by others: no block is needed
        (2, 1, 12),
        (0, 0, 8),  # all of it is cached, and so is nothing else that could be given up for more
        (0, 1, 12),
        (1, 2, 16),
    ],
)
def test_hits_make_room_once(held: int, free: int, positions: int) -> None:
    """Two blocks of a text are in the prefix cache, and the first `held` of them are held. Of the other blocks `free`
    are free and the rest are held."""
    manager, store = make_manager(6, 4)
    holder = serve(manager, store, TEXT[: 4 * held]) if held else manager.new_table()
    remember(manager, store, TEXT) if not held else manager.close(serve(manager, store, [*TEXT, 0]))
    others = manager.new_table()
    manager.reserve(others, 0, 4 * (4 - free))
    assert (manager.device.free, manager.device.cached) == (free, 2 - held)
    table, text = manager.new_table(), [*TEXT, 0]
    assert manager.fits(table, text, positions)
    assert not manager.fits(table, text, positions + 1)
    room, stranger = 4 * (free + 2 - held), manager.new_table()
    assert manager.fits(stranger, [0] * 9, room) and not manager.fits(stranger, [0] * 9, room + 1)  # no hits
    assert manager.open(table, text) == 8
    with pytest.raises(ResourceExhausted):
        manager.reserve(table, 8, positions + 1)
    manager.reserve(table, 8, positions)
    audit(manager, [holder, others, table])


@pytest.mark.clause("KV-32")
def test_hits_on_the_host_need_room_on_the_device() -> None:
    manager, store = make_manager(4, 4, 4)
    table = serve(manager, store, TEXT)
    manager.swap_out(table, 8)
    manager.close(table)
    manager.device.evict(2)
    others = manager.new_table()
    manager.reserve(others, 0, 8)
    assert known(manager, TEXT) == ["host"] * 2
    assert manager.fits(table, [*TEXT, 0], 8) and not manager.fits(table, [*TEXT, 0], 9)


@pytest.mark.clause("KV-32")
@given(size=st.integers(1, 4), first=st.lists(st.integers(0, 1), min_size=1, max_size=12), data=st.data())
def test_what_is_found_is_the_common_beginning_in_whole_blocks(
    size: int, first: list[int], data: st.DataObject
) -> None:
    manager, store = make_manager(64, size)
    remember(manager, store, first)
    second = first[: data.draw(st.integers(0, len(first)))] + data.draw(st.lists(st.integers(0, 1), max_size=6))
    common = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    table = manager.new_table()
    assert manager.open(table, second) == common // size * size
    assert held_by(store, table, table.capacity) == codes(first, 0, table.capacity)
