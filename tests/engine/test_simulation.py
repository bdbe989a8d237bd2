"""ENGINE-41: simulations of an engine from seeds, and planted defects that a simulation must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from ferrum.kv.block_table import BlockTable
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.sched.preemption import Preempter
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.testing.simulate import main, simulate

Patch = pytest.MonkeyPatch


@pytest.mark.clause("ENGINE-41", "SCHED-10", "SCHED-13")
def test_lives_go_well_and_everything_happens_in_them() -> None:
    totals = simulate(seed=0, steps=15_000)
    for name in ("answered", "recomputed", "swapped", *(f"kv {kind}" for kind in ("demoted", "promoted", "dropped"))):
        assert totals[name] > 10, f"{name} hardly ever happens: the simulation proves nothing about it"
    assert min(totals["kv copied"], totals["kv swapped_in"], totals["kv failed_moves"]) > 10


@pytest.mark.clause("ENGINE-41")
def test_a_seed_is_a_life() -> None:
    assert simulate(seed=5, steps=1000) == simulate(seed=5, steps=1000)
    assert simulate(seed=5, steps=1000) != simulate(seed=6, steps=1000)


def write_to_shared_blocks(patch: Patch) -> None:
    patch.setattr(BlockPool, "writable", lambda pool, block: True)


def forget_to_close(patch: Patch) -> None:
    finish = KvManager.close
    calls = iter(range(10**9))
    patch.setattr(KvManager, "close", lambda manager, table: None if next(calls) % 50 == 7 else finish(manager, table))


def record_too_early(patch: Patch) -> None:
    record = KvManager.record

    def early(manager: KvManager, table: BlockTable, tokens: list[int], computed: int) -> None:
        record(manager, table, tokens, min(len(tokens), table.capacity))

    patch.setattr(KvManager, "record", early)


def lose_a_move(patch: Patch) -> None:
    swap_in = KvManager.swap_in

    def lost(manager: KvManager, table: BlockTable) -> None:
        swap_in(manager, table)
        table.blocks.reverse()
        table.replace(0, table.blocks[0])

    patch.setattr(KvManager, "swap_in", lost)


def compute_nothing_for_cached_prompts(patch: Patch) -> None:
    opened = KvManager.open
    patch.setattr(KvManager, "open", lambda *arguments: opened(*arguments) + 1)


def replay_output_after_preemption(patch: Patch) -> None:
    preempt = Preempter.preempt

    def forgetful(preempter: Preempter, sequence: TokenSequence) -> None:
        preempt(preempter, sequence)
        del sequence.token_ids[sequence.prompt_length :]

    patch.setattr(Preempter, "preempt", forgetful)


def exceed_the_budget(patch: Patch) -> None:
    make_room = Scheduler._make_room

    def generous(*arguments: Any) -> int:
        return make_room(*arguments) + 1

    patch.setattr(Scheduler, "_make_room", generous)


DEFECTS: list[Callable[[Patch], None]] = [
    write_to_shared_blocks,
    forget_to_close,
    record_too_early,
    lose_a_move,
    compute_nothing_for_cached_prompts,
    replay_output_after_preemption,
    exceed_the_budget,
]


@pytest.mark.clause("ENGINE-41")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_found_and_its_seed_named(defect: Callable[[Patch], None], monkeypatch: Patch) -> None:
    defect(monkeypatch)
    with pytest.raises(Exception) as caught:
        simulate(seed=0, steps=20_000)
    assert any(note.startswith("replay: python -m ferrum.testing.simulate --seed") for note in caught.value.__notes__)


@pytest.mark.clause("ENGINE-41")
def test_the_command_reports_and_fails(monkeypatch: Patch) -> None:
    good = CliRunner().invoke(main, ["--seed", "3", "--steps", "500"])
    assert good.exit_code == 0 and "all is well" in good.output
    write_to_shared_blocks(monkeypatch)
    bad = CliRunner().invoke(main, ["--seed", "0", "--steps", "20000"])
    assert bad.exit_code == 1 and "replay: python -m ferrum.testing.simulate --seed" in bad.output
