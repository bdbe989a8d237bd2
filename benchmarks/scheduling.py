"""What serving costs beside the model: turns of the scheduler, and blocks of the pool. No model is loaded.

    pip install '.[plot]' && python benchmarks/scheduling.py

*Turns.* A turn is what passes between two forward passes: `commit` of a step and `plan` of the next. All sequences
decode, each with a text of its own; as many as may run do run and more wait; memory is full of cached blocks, so that
every new block evicts one. Staggered, a sixteenth of the sequences fills a block in each turn. In lockstep all of them
do, in every sixteenth turn: those turns, the worst there are, are also reported on their own. Caches are warm, unless a
case says "cold": then a walk through more memory than they hold, which is not timed, stands for the forward pass; there
are fewer such turns, since the walk takes longer than the turn.

*Blocks.* The cost per block, in batches, of a pool that is full of cached blocks in random order: of allocation, which
has to evict; of registering the new content; of release; of a hit (share and release of a random block); and of
allocation where blocks are free. A pool of a million blocks misses the processor's caches where one of a thousand does
not: a plain dict of the same size, from which keys are taken at random while others are put in, shows how much of the
growth that explains.

All times are processor time of the thread: it never waits, so on an idle machine that is what a clock says, and on a
busy one other programs' turns are not counted. Cases take turns, round after round, so that a machine whose speed
drifts treats them alike. Writes JSON and, if there is matplotlib, a picture to benchmarks/results; with --quick, which
is for trying it out, only where --output says.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any, Protocol

import numpy as np
from results import keep, picture, summary, surroundings

from ferrum.kv.eviction import POLICIES, make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.sampling_params import SamplingParams
from ferrum.sched.order import ORDERS
from ferrum.sched.scheduler import Limits, Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.testing.stub import StubStore
from ferrum.types import Priority

BLOCK_SIZE = 16
PROMPT = 2 * BLOCK_SIZE  # tokens of a prompt in lockstep; staggered, up to one block more
WAITING = 64  # sequences that wait behind those that run
COLD_BYTES = 64 << 20  # read between two turns where caches are to be cold
BATCH = 256  # blocks per call of the pool: to read the clock takes a microsecond
PLAIN_DICT = "plain dict"
PHASES = ("allocate_free", "evict", "register", "release", "hit")
CYCLE = ("evict", "register", "release")  # a block's life on a server that has run for a while: the sum is "cycle"


@dataclass(frozen=True)
class TurnCase:
    """So many sequences, in one of ORDERS, at "staggered" or "lockstep" lengths, with "warm" or "cold" caches."""

    running: int
    order: str
    lengths: str
    caches: str = "warm"


# ---- turns
def turn_cases(counts: Sequence[int]) -> list[TurnCase]:
    """Every count in every way with warm caches; the one with the target with cold ones too."""
    ways = itertools.product(counts, ORDERS, ("staggered", "lockstep"))
    return [TurnCase(*way) for way in ways] + [TurnCase(256, "fifo", way, "cold") for way in ("staggered", "lockstep")]


def decoding(case: TurnCase, turns: int) -> Scheduler:
    """A scheduler whose sequences have computed their prompts; there is memory for so many turns."""
    longest = PROMPT + BLOCK_SIZE + turns + 2
    pool = full_pool(case.running * (longest // BLOCK_SIZE + 1), "lru")
    manager = KvManager(StubStore(1, BLOCK_SIZE), pool, None, BLOCK_SIZE)
    limits = Limits(case.running, case.running * longest, longest, max_waiting=case.running + WAITING)
    scheduler = Scheduler(manager, limits, ORDERS[case.order])
    rng = random.Random(case.running)
    for index in range(case.running + WAITING):
        length = PROMPT + (index % BLOCK_SIZE if case.lengths == "staggered" else 0)
        waits = index >= case.running
        priority = Priority.LOW if waits else Priority(1 + index % 3)
        prompt = [rng.randrange(1 << 15) for _ in range(length)]
        scheduler.add(TokenSequence(prompt, SamplingParams(max_tokens=None), seed=0, priority=priority))
    plan = scheduler.plan()
    scheduler.commit(plan, [0] * len(plan.sampled))
    if scheduler.running != case.running or scheduler.waiting != WAITING:
        raise RuntimeError(f"{scheduler.running} sequences run instead of {case.running}")
    return scheduler


def time_turns(case: TurnCase, turns: int) -> list[float]:
    """Microseconds of each turn. In lockstep those with the numbers 15, 31, … fill and ask for blocks."""
    scheduler = decoding(case, turns)
    tokens = [0] * case.running
    other_memory = np.ones(COLD_BYTES // 8 if case.caches == "cold" else 0)
    samples = []
    plan = scheduler.plan()
    for _ in range(turns):
        other_memory.sum()
        start = thread_time()
        scheduler.commit(plan, tokens)
        plan = scheduler.plan()
        samples.append(1e6 * (thread_time() - start))
        if plan.tokens != case.running or len(plan.chunks) != case.running:
            raise RuntimeError(f"{plan.tokens} tokens of {len(plan.chunks)} sequences are planned")
    return samples


def turn_result(case: TurnCase, rounds: list[list[float]]) -> Iterator[dict[str, Any]]:
    """Statistics of all turns, and in lockstep once more of those at a block boundary."""
    selections = {"all": slice(None)}
    if case.lengths == "lockstep":
        selections["at a block boundary"] = slice(BLOCK_SIZE - 1, None, BLOCK_SIZE)
    for which, selection in selections.items():
        chosen = [samples[selection] for samples in rounds]
        pooled = sorted(itertools.chain(*chosen))
        yield asdict(case) | {
            "turns": which,
            "count": len(pooled),
            "median_us": statistics.median(pooled),
            "mean_us": statistics.fmean(pooled),
            "p99_us": pooled[int(0.99 * (len(pooled) - 1))],
            "max_us": pooled[-1],
            "median_us_by_round": summary([statistics.median(samples) for samples in chosen]),
        }


def measure_turns(counts: Sequence[int], turns: int, rounds: int) -> list[dict[str, Any]]:
    cases = turn_cases(counts)
    samples: dict[TurnCase, list[list[float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            samples[case].append(time_turns(case, turns // 4 if case.caches == "cold" else turns))
    return [result for case in cases for result in turn_result(case, samples[case])]


# ---- blocks
def full_pool(total: int, policy: str) -> BlockPool:
    """A pool whose blocks are all cached; they would be evicted in random order."""
    pool = BlockPool(total, make_policy(policy))
    blocks, _ = pool.allocate(total)
    for block, digest in zip(blocks, digests(total), strict=True):
        pool.register(block, digest)
    random.Random(total).shuffle(blocks)
    pool.release(blocks)
    return pool


_made = itertools.count()


def digests(count: int) -> list[bytes]:
    """As many as wanted; no two are ever the same."""
    return [next(_made).to_bytes(16, "little") for _ in range(count)]


class Contestant(Protocol):
    def run(self, batches: int) -> dict[str, float]:
        """Nanoseconds per block, by phase, on the mean of so many batches."""
        ...


class PoolContestant:
    """A pool in which blocks come and go; at the end of each batch all are cached again."""

    def __init__(self, size: int, policy: str) -> None:
        self._pool = full_pool(size, policy)

    def run(self, batches: int) -> dict[str, float]:
        spent = dict.fromkeys(PHASES, 0.0)
        for _ in range(batches):
            self._come_and_go(spent)
            self._hit(spent)
            self._allocate_free(spent)
        return per_block(spent, batches)

    def _come_and_go(self, spent: dict[str, float]) -> None:
        pool, names = self._pool, digests(BATCH)
        start = thread_time()
        blocks, _ = pool.allocate(BATCH)
        allocated = thread_time()
        for block, name in zip(blocks, names, strict=True):
            pool.register(block, name)
        registered = thread_time()
        pool.release(blocks)
        released = thread_time()
        spent["evict"] += allocated - start
        spent["register"] += registered - allocated
        spent["release"] += released - registered

    def _hit(self, spent: dict[str, float]) -> None:
        pool, blocks = self._pool, random.sample(range(self._pool.total), BATCH)
        start = thread_time()
        for block in blocks:
            pool.share(block)
        pool.release(blocks)
        spent["hit"] += thread_time() - start

    def _allocate_free(self, spent: dict[str, float]) -> None:
        pool = self._pool
        pool.evict(BATCH)
        start = thread_time()
        blocks, _ = pool.allocate(BATCH)
        spent["allocate_free"] += thread_time() - start
        for block, name in zip(blocks, digests(BATCH), strict=True):
            pool.register(block, name)
        pool.release(blocks)


class DictContestant:
    """A dict with as many digests as a pool has blocks: what the hardware takes for one look-up of each kind."""

    def __init__(self, size: int) -> None:
        self._names = digests(size)
        self._dict = {name: block for block, name in enumerate(self._names)}

    def run(self, batches: int) -> dict[str, float]:
        table, names, spent = self._dict, self._names, 0.0
        for _ in range(batches):
            places = random.sample(range(len(names)), BATCH)
            exchanges = [(names[place], new) for place, new in zip(places, digests(BATCH), strict=True)]
            start = thread_time()
            for old, new in exchanges:
                table[new] = table.pop(old)
            spent += thread_time() - start
            for place, (_, new) in zip(places, exchanges, strict=True):
                names[place] = new
        return per_block({"cycle": spent}, batches)


def per_block(spent: dict[str, float], batches: int) -> dict[str, float]:
    """Seconds in all -> nanoseconds per block."""
    return {phase: 1e9 * seconds / (batches * BATCH) for phase, seconds in spent.items()}


def measure_blocks(sizes: Sequence[int], batches: int, rounds: int) -> list[dict[str, Any]]:
    """All sizes of one policy stand side by side and take turns; the first round warms up and does not count."""
    results: list[dict[str, Any]] = []
    for name in (*POLICIES, PLAIN_DICT):
        contestants: dict[int, Contestant] = {
            size: DictContestant(size) if name == PLAIN_DICT else PoolContestant(size, name) for size in sizes
        }
        samples: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
        for _ in range(rounds + 1):
            for size, contestant in contestants.items():
                samples[size].append(contestant.run(batches))
        results += [{"policy": name, "blocks": size, "ns": block_result(samples[size][1:])} for size in sizes]
    return results


def block_result(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and spread over the rounds of each phase, and of a block's whole cycle."""
    rounds = [{"cycle": sum(phases.get(phase, 0.0) for phase in CYCLE)} | phases for phases in rounds]
    return {phase: summary([phases[phase] for phases in rounds]) for phase in rounds[0]}


# ---- what came out
def print_turns(results: list[dict[str, Any]]) -> None:
    print("\nturns: commit of a step and plan of the next, microseconds; rounds: medians of the rounds")
    print(f"{'running':>7}  {'order':8}  {'lengths':9}  {'caches':6}  {'turns':19}  {'count':>6}  "
          f"{'median':>8}  {'mean':>8}  {'p99':>8}  {'max':>8}  rounds")  # fmt: skip
    for case in results:
        spread = case["median_us_by_round"]
        print(f"{case['running']:7}  {case['order']:8}  {case['lengths']:9}  {case['caches']:6}  {case['turns']:19}  "
              f"{case['count']:6}  {case['median_us']:8.1f}  {case['mean_us']:8.1f}  {case['p99_us']:8.1f}  "
              f"{case['max_us']:8.1f}  {spread['low']:.1f} to {spread['high']:.1f}")  # fmt: skip


def print_blocks(results: list[dict[str, Any]]) -> None:
    print("\nblocks: nanoseconds per block, medians of the rounds (lowest to highest)")
    print("cycle: evict, register, release; for the dict, an exchange; ratio: of cycles, to that of the smallest pool")
    columns = (*PHASES, "cycle")
    print(f"{'policy':10}  {'blocks':>7}  {''.join(f'{column:20}' for column in columns)}ratio")
    smallest: dict[str, float] = {}
    for case in results:
        cells = [
            f"{found['median']:.0f} ({found['low']:.0f} to {found['high']:.0f})" if found else "-"
            for found in (case["ns"].get(column) for column in columns)
        ]
        cycle = case["ns"]["cycle"]["median"]
        ratio = cycle / smallest.setdefault(case["policy"], cycle)
        print(f"{case['policy']:10}  {case['blocks']:7}  {''.join(f'{cell:20}' for cell in cells)}{ratio:.2f}")


def draw(results: dict[str, Any], path: Path) -> None:
    """Two panels: turns against running sequences, blocks against the size of the pool."""
    with picture(results, path, columns=2, size=(11, 4.4)) as (left, right):
        draw_turns(left, results["turns"])
        draw_blocks(right, results["blocks"])


def draw_turns(axes: Any, results: list[dict[str, Any]]) -> None:
    series = {"staggered lengths": ("staggered", "all", "C0"),
              "lockstep, at a block boundary": ("lockstep", "at a block boundary", "C3")}  # fmt: skip
    for order, (line, marker) in zip(ORDERS, (("-", "o"), ("--", "x")), strict=True):
        for label, (lengths, turns, color) in series.items():
            wanted = {"order": order, "lengths": lengths, "turns": turns, "caches": "warm"}
            cases = [case for case in results if wanted.items() <= case.items()]
            counts = [case["running"] for case in cases]
            median = [case["median_us"] / 1000 for case in cases]
            axes.plot(counts, median, line, marker=marker, color=color, label=f"{label}, {order}")
            if order == "fifo":
                p99 = [case["p99_us"] / 1000 for case in cases]
                axes.fill_between(counts, median, p99, color=color, alpha=0.15, lw=0)
    axes.plot([256], [1], "k_", markersize=18, label="target: 1 ms at 256")
    axes.set(xscale="log", yscale="log", xlabel="running sequences", ylabel="commit and plan, milliseconds")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(counts, [str(count) for count in counts], minor=False)
    axes.minorticks_off()
    axes.set_title("A turn of the scheduler (shaded: up to the 99th percentile)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5)


def draw_blocks(axes: Any, results: list[dict[str, Any]]) -> None:
    shown = [(policy, "cycle", f"evict, register, release: {policy}", "-") for policy in POLICIES]
    shown += [("lru", "allocate_free", "allocate where blocks are free", "--"),
              (PLAIN_DICT, "cycle", "for comparison: one exchange in a dict", ":")]  # fmt: skip
    for policy, phase, label, line in shown:
        cases = [case for case in results if case["policy"] == policy]
        found = [case["ns"][phase] for case in cases]
        median = np.array([one["median"] for one in found]) / 1000
        spread = [median - [one["low"] / 1000 for one in found], [one["high"] / 1000 for one in found] - median]
        sizes = [case["blocks"] for case in cases]
        axes.errorbar(sizes, median, spread, ls=line, marker="o", markersize=4, capsize=3, label=label)
    axes.set(xscale="log", xlabel="blocks in the pool", ylabel="microseconds per block", ylim=(0, None))
    axes.set_title("A block of the pool (bars: lowest and highest round)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases, turns and rounds")
    parser.add_argument("--rounds", type=int, help="of the turns; the blocks get three times as many")
    parser.add_argument("--output", type=Path, help="the folder for results")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    turns, counts = (256, (16, 256)) if options.quick else (2048, (16, 64, 256, 1024))
    batches, sizes = (10, (10**3, 10**4, 10**5)) if options.quick else (50, (10**3, 10**4, 10**5, 10**6))
    results = surroundings()
    results["turns"] = measure_turns(counts, turns, rounds)
    print_turns(results["turns"])
    results["blocks"] = measure_blocks(sizes, batches, 3 * rounds)
    print_blocks(results["blocks"])
    keep(results, "scheduling", options.output, options.quick, partial(draw, results))


if __name__ == "__main__":
    main()
