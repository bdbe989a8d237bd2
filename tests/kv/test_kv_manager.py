"""KV-10 to KV-19, KV-23, KV-24, KV-30 to KV-34, KV-41: any trace of operations, with failures in the middle of them.

The store holds numbers that stand for whole texts (`tests.kv.oracles.code`), in the place of keys and values: a block
that was computed after another text, or was not computed, has a wrong number. The machine writes in place of a runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import BlockTable
from ferrum.kv.pool import BlockPool
from ferrum.kv.prefix import PrefixChain
from ferrum.testing.audit import audit
from tests.kv.oracles import POLICY_NAMES, codes, digests_of, make_manager

LONGEST = 24
POISON = -9

tokens = st.integers(0, 1)
faults = st.one_of(st.just(set()), st.sets(st.integers(0, 4), max_size=2))


@dataclass(eq=False)
class Row:
    """A sequence: its text, how many of its tokens are computed, and whether it has its place in memory."""

    table: BlockTable
    text: list[int]
    computed: int = 0
    place: str = "nowhere"  # "device", "host"


class ManagerMachine(RuleBasedStateMachine):
    """Compares a manager over a store in memory with rows: for each sequence its text, which decides what every block
    must contain. Rules: a row is opened, computed, forked, swapped out and in, closed; gc and reset. In most rules an
    allocation or a move may fail. After each rule the contents of memory, the pools and the counters are checked."""

    @initialize(
        size=st.integers(1, 4),
        blocks=st.integers(2, 6),
        host=st.sampled_from([0, 1, 2, 3, 5]),
        policy=st.sampled_from(POLICY_NAMES),
        caching=st.sampled_from([True, True, True, False]),
    )
    def start(self, size: int, blocks: int, host: int, policy: str, caching: bool) -> None:
        self.size = size
        self.manager, self.store = make_manager(blocks, size, host, policy, prefix_caching=caching)
        self.rows: list[Row] = []
        self.texts: dict[bytes, tuple[int, ...]] = {}  # for each digest so far, the text that it stands for
        self.hits = self.queried = 0

    # ---- helpers
    def tiers(self) -> list[tuple[BlockPool, Any]]:
        host = [] if self.manager.host is None else [(self.manager.host, self.store.host)]
        return [(self.manager.device, self.store.device), *host]

    def learn(self, text: list[int]) -> list[bytes]:
        """The digests of the full blocks of a text, from a new chain. Notes them in `texts`."""
        chain = PrefixChain(self.manager.root, self.size)
        digests = [chain.digest(index, text) for index in range(len(text) // self.size)]
        self.texts |= {digest: tuple(text[: (place + 1) * self.size]) for place, digest in enumerate(digests)}
        return digests

    def books(self) -> list[Any]:
        """The state that a failed operation must not change: references and digests of held blocks, and all tables."""
        pools = [pool for pool, _ in self.tiers()]
        held = [(pool.references(block), pool.digest(block)) for pool in pools for block in range(pool.total)]
        tables = [row.table for row in self.rows]
        return [
            [(count, digest if count else None) for count, digest in held],
            [(table.blocks[:], table.host_blocks[:], table.recorded, table.writable_until) for table in tables],
        ]

    @contextmanager
    def failing(self, places: set[int]) -> Iterator[None]:
        self.store.faults.arm(places)
        try:
            yield
        finally:
            self.store.faults.arm(set())

    def attempt(self, places: set[int], operation: Callable[[], Any]) -> bool:
        """Runs an operation during which the calls numbered `places` fail. True if it succeeded; if it failed, checks
        that `books` are as before."""
        before = self.books()
        known = [set(digests_of(pool)) for pool, _ in self.tiers()]
        try:
            with self.failing(places):
                operation()
        except (ResourceExhausted, DeviceError) as error:
            assert self.books() == before, "a failed operation changed something"
            assert set(digests_of(self.manager.device)) <= known[0]
            assert places or isinstance(error, ResourceExhausted)
            return False
        return True

    def drawn(self, data: st.DataObject, place: str) -> Row:
        return data.draw(st.sampled_from([row for row in self.rows if row.place == place]), "row")

    def some(place: str) -> Any:  # type: ignore[misc] # a decorator for the rules below
        return precondition(lambda self: any(row.place == place for row in self.rows))

    # ---- rows come
    @precondition(lambda self: len(self.rows) < 5)
    @rule(data=st.data(), places=faults)
    def arrive(self, data: st.DataObject, places: set[int]) -> None:
        self.open(self.new_row(data), places)

    @rule(data=st.data(), places=faults)
    def come_and_go(self, data: st.DataObject, places: set[int]) -> None:
        """A row is opened, computed and closed in one rule: only its cached blocks remain."""
        row = self.new_row(data)
        self.open(row, set())
        self.compute(row, LONGEST, places)
        self.leave(row)
        self.rows.remove(row)

    @some("nowhere")
    @rule(data=st.data(), places=faults)
    def come_back(self, data: st.DataObject, places: set[int]) -> None:
        self.open(self.drawn(data, "nowhere"), places)

    def new_row(self, data: st.DataObject) -> Row:
        """A new row with zeros, then ones, so that texts often share a prefix; its last block is often full."""
        length = self.size * data.draw(st.integers(0, self.manager.device.total - 1), "full blocks")
        length = min(LONGEST, length + data.draw(st.sampled_from([0, 0, 1, self.size - 1]), "more")) or 1
        zeros = data.draw(st.integers(0, length), "zeros")
        row = Row(self.manager.new_table(), [0] * zeros + [1] * (length - zeros))
        self.rows.append(row)
        return row

    def open(self, row: Row, places: set[int]) -> None:
        """KV-32: opening a row finds the longest run of blocks that are in the pools, or the part of that run that is
        on the device if there is no room to promote the rest."""
        device, host = digests_of(self.manager.device), digests_of(self.manager.host)
        digests = self.learn(row.text)
        run = next((i for i, d in enumerate(digests) if d not in device and d not in host), len(digests))
        straight = next((i for i, d in enumerate(digests[:run]) if d not in device), run)
        idle = sum(not self.manager.device.references(device[d]) for d in digests[:run] if d in device)
        room = self.manager.device.available - idle >= sum(d not in device for d in digests[:run])
        hits = self.manager.find(row.table, row.text)
        assert [hit.digest for hit in hits] == digests[:run]
        assert [(hit.block, hit.host_block) for hit in hits] == [
            (device.get(d), None if d in device else host[d]) for d in digests[:run]
        ]
        with self.failing(places):
            found = self.manager.open(row.table, row.text)
        assert found == row.table.capacity
        assert found in {straight * self.size, run * self.size}
        assert places or found == self.size * (run if room else straight)
        row.computed, row.place = min(found, len(row.text) - 1), "device"
        self.hits, self.queried = self.hits + found, self.queried + len(row.text)

    # ---- rows come forward
    @some("device")
    @rule(data=st.data(), count=st.sampled_from([1, 2, LONGEST]), new=tokens, places=faults)
    def go_on(self, data: st.DataObject, count: int, new: int, places: set[int]) -> None:
        row = self.drawn(data, "device")
        if row.computed == len(row.text) < LONGEST:
            row.text.append(new)
        self.compute(row, count, places)

    @some("device")
    @rule(places=faults)
    def a_step_for_all(self, places: set[int]) -> None:
        """As in a batch: all rows on the device are written before the first one is recorded."""
        moved = [row for row in self.rows if row.place == "device" and self.write(row, self.size, places)]
        for row in moved:
            self.manager.record(row.table, row.text, row.computed)

    @rule(places=faults)
    def grow(self, places: set[int]) -> None:
        """Each table whose last block is full gets a block, or no table does."""
        tables = [row.table for row in self.rows if row.place == "device" and row.computed == row.table.capacity]
        before, had, room = self.books(), [table.blocks[:] for table in tables], self.manager.device.available
        with self.failing(places):
            self.manager.grow(tables)
        if any(len(table.blocks) > len(blocks) for table, blocks in zip(tables, had, strict=True)):
            for table, blocks in zip(tables, had, strict=True):
                assert table.blocks[:-1] == blocks
                assert self.manager.device.writable(table.blocks[-1])
                assert table.writable_until == table.capacity == (len(blocks) + 1) * self.size
        else:
            assert self.books() == before
            assert places or not tables or room < len(tables)

    def compute(self, row: Row, count: int, places: set[int]) -> None:
        if self.write(row, count, places):
            self.manager.record(row.table, row.text, row.computed)

    def write(self, row: Row, count: int, places: set[int]) -> bool:
        """Does what a step does for one row before it is recorded. False if there was no room."""
        self.learn(row.text)
        end, table, device = min(row.computed + count, len(row.text)), row.table, self.store.device.reshape(-1)
        if end > table.writable_until:
            if not self.attempt(places, lambda: self.manager.reserve(table, row.computed, end)):
                return False
            assert end <= table.writable_until == table.capacity
            self.memory_is_right()  # copy on write keeps the positions that are computed
            device[table.slots(row.computed, table.capacity - row.computed)] = POISON
        for block in {table.blocks[position // self.size] for position in range(row.computed, end)}:
            assert self.manager.device.digest(block) is None, "a block that others can find is written"
            assert [other for other in self.rows if block in other.table.blocks] == [row], "a shared block is written"
        device[table.slots(row.computed, end - row.computed)] = codes(row.text, row.computed, end)
        row.computed = end
        return True

    @some("device")
    @precondition(lambda self: len(self.rows) < 5)
    @rule(data=st.data(), short=st.integers(0, 3))
    def fork(self, data: st.DataObject, short: int) -> None:
        """A new row that shares the computed blocks of a row, and gets other tokens later."""
        source = self.drawn(data, "device")
        positions = max(0, source.computed - short)
        row = Row(self.manager.new_table(), source.text[: positions + 1])
        self.manager.fork(source.table, row.table, positions)
        row.computed, row.place = min(positions, len(row.text) - 1), "device"
        self.rows.append(row)

    # ---- rows go, for a while or for good
    @precondition(lambda self: self.manager.host is not None)
    @some("device")
    @rule(data=st.data(), places=faults)
    def swap_out(self, data: st.DataObject, places: set[int]) -> None:
        row = self.drawn(data, "device")
        if self.attempt(places, lambda: self.manager.swap_out(row.table, row.computed)):
            row.place = "host"
            assert not row.table.blocks
            assert len(row.table.host_blocks) == -(-row.computed // self.size)

    @some("host")
    @rule(data=st.data(), places=faults)
    def swap_in(self, data: st.DataObject, places: set[int]) -> None:
        row = self.drawn(data, "host")
        if self.attempt(places, lambda: self.manager.swap_in(row.table)):
            row.place = "device"
            assert not row.table.host_blocks
            assert row.table.writable_until <= row.computed

    @precondition(lambda self: any(row.place != "nowhere" for row in self.rows))
    @rule(data=st.data(), for_good=st.booleans())
    def close(self, data: st.DataObject, for_good: bool) -> None:
        """A row is closed because it has ended, or because it is preempted: then it is opened again later, with the
        same table."""
        row = data.draw(st.sampled_from([row for row in self.rows if row.place != "nowhere"]), "row")
        self.leave(row)
        if for_good:
            self.rows.remove(row)

    def leave(self, row: Row) -> None:
        self.manager.close(row.table)
        assert not row.table.blocks and not row.table.host_blocks
        row.computed, row.place = 0, "nowhere"

    @rule(keep=st.integers(0, 3))
    def gc(self, keep: int) -> None:
        """KV-42, its first half: held blocks stay, and so do `keep` cached blocks of each tier."""
        before = self.books()
        cached = [pool.cached for pool, _ in self.tiers()]
        assert self.manager.gc(keep) == sum(max(0, count - keep) for count in cached)
        assert [pool.cached for pool, _ in self.tiers()] == [min(count, keep) for count in cached]
        assert self.books() == before

    @precondition(lambda self: len(self.rows) > 3)
    @rule()
    def reset(self) -> None:
        """The contents of memory are lost: every sequence begins again, with a new table."""
        self.manager.reset()
        assert all(pool.free == pool.total for pool, _ in self.tiers())
        for row in self.rows:
            row.table, row.computed, row.place = self.manager.new_table(), 0, "nowhere"

    @rule(data=st.data(), more=st.integers(1, 6))
    def try_whether_it_fits(self, data: st.DataObject, more: int) -> None:
        """If `fits` is true, the row can be opened and reserved; otherwise `reserve` fails. If the whole text is
        cached, the copy of the block with the last token takes the room that `more` asks for."""
        row = self.new_row(data)
        self.learn(row.text)
        length, table = len(row.text), row.table
        before = self.books(), [digests_of(pool) for pool, _ in self.tiers()]
        fits = self.manager.fits(table, row.text, length + more)
        assert (self.books(), [digests_of(pool) for pool, _ in self.tiers()]) == before
        found = self.manager.open(table, row.text)
        self.hits, self.queried = self.hits + found, self.queried + length
        start = min(found, length - 1)
        if fits:
            self.manager.reserve(table, start, length + more if found < length else length)
        else:
            with pytest.raises(ResourceExhausted):
                self.manager.reserve(table, start, length + more)
        self.leave(row)
        self.rows.remove(row)

    # ---- what is true after each rule
    @invariant()
    def the_books_are_right(self) -> None:
        manager = self.manager
        audit(manager, [row.table for row in self.rows])
        assert not any(row.table.blocks or row.table.host_blocks for row in self.rows if row.place == "nowhere")
        for row in self.rows:  # KV-16, for positions that may be written without another `reserve`
            size = self.size
            for block in row.table.blocks[row.computed // size : -(-row.table.writable_until // size)]:
                assert row.table.writable_until <= row.computed or manager.device.writable(block)
        if not manager.prefix_caching:
            assert all(pool.cached == 0 and not digests_of(pool) for pool, _ in self.tiers())
            assert all(manager.find(row.table, row.text) == [] for row in self.rows)
        for (
            pool,
            contents,
        ) in self.tiers():  # contents of free blocks are garbage: code that relies on them gives wrong texts
            for block in range(pool.total):
                if not pool.references(block) and pool.digest(block) is None:
                    contents[block] = POISON

    @invariant()
    def memory_is_right(self) -> None:
        """KV-17 for the blocks of rows, KV-31 for every block that the prefix cache can find."""
        for row in self.rows:
            blocks = row.table.host_blocks if row.place == "host" else row.table.blocks
            contents = self.store.host if row.place == "host" else self.store.device
            assert contents[blocks].reshape(-1)[: row.computed].tolist() == codes(row.text, 0, row.computed)
        for pool, contents in self.tiers():
            for digest, block in digests_of(pool).items():
                text = self.texts[digest]
                assert contents[block].tolist() == codes(text, len(text) - self.size)

    @invariant()
    def counters_count_what_happened(self) -> None:
        counters, store = self.manager.counters(), self.store
        assert counters.copied == store.copied
        assert counters.demoted + counters.swapped_out == store.moved_out
        assert counters.promoted + counters.swapped_in == store.moved_in
        assert counters.failed_moves == store.failed
        evictions = [pool.evictions for pool, _ in self.tiers()]  # type: ignore[attr-defined]
        assert [counters.evicted, counters.dropped][: len(evictions)] == evictions
        caching = self.manager.prefix_caching
        assert (counters.hit_tokens, counters.queried_tokens) == ((self.hits, self.queried) if caching else (0, 0))
        device = self.manager.device
        assert counters.peak_held >= device.held

    def teardown(self) -> None:
        if not hasattr(self, "rows"):
            return
        for row in self.rows:
            self.manager.close(row.table)
        for pool, _ in self.tiers():
            assert pool.held == 0
            assert set(pool.allocate(pool.total)[0]) == set(range(pool.total))


@pytest.mark.clause("KV-10", "KV-11", "KV-12", "KV-13", "KV-14", "KV-16", "KV-17", "KV-18", "KV-19", "KV-23", "KV-24")
@pytest.mark.clause("KV-30", "KV-31", "KV-32", "KV-33", "KV-34", "KV-40", "KV-41", "KV-42")
class TestManager(ManagerMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""

    settings = settings(max_examples=4 * settings.default.max_examples)
