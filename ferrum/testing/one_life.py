"""`python -m ferrum.testing.one_life docs/one-life.md`: the figures of the worked example, from a real engine.

Owns: three stories of a few requests, told step by step: chunks, tokens, slots, tables, blocks, logits. The engine,
scheduler, memory and sampler are the real ones; the model is a stub that knows four sentences by heart, and reads the
past of a sequence from its blocks. Each figure replaces the block of code after its mark in the page.
Refuses to know: what the page says about the figures.
Specs: DOCS-08. Next: `ferrum.testing.strict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.engine.runner import pack
from ferrum.kv.pool import BlockPool
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.testing.build import StubSettings, stub_engine

SENTENCES = [b"The cat sat down.", b"The cat is away.", b"The cat ate it.", b"Dogs bark at cats.", b"Mice run."]
MARK = re.compile(r"(<!-- figure: ([^>]+) -->\n```text\n).*?(```\n)", re.DOTALL)


def recite(tokens: Sequence[int]) -> int:
    """The model: the next byte of the first sentence that begins with these tokens."""
    prefix = bytes(tokens)
    return next(sentence[len(prefix)] for sentence in SENTENCES if sentence.startswith(prefix))


class Diary(EngineObserver):
    """Writes down each step of an engine, once as it is planned and once when its tokens are sampled."""

    def __init__(self) -> None:
        self.engine: Engine
        self.names: dict[TokenSequence, str] = {}
        self.steps: list[str] = []

    def step_planned(self, plan: StepPlan) -> None:
        batch = pack(self.engine.executor.ops, plan.chunks)
        lines = [f"step {len(self.steps) + 1}"]
        for chunk in plan.chunks:
            sequence = chunk.sequence
            tokens = sequence.token_ids[chunk.start : chunk.start + chunk.count]
            lines.append(
                f"  {self.names[sequence]}   start {chunk.start}  count {chunk.count}  rows {chunk.rows}"
                f"   text {bytes(tokens).decode()!r}   table {sequence.table.blocks}"
            )
        for sequence in self.engine.scheduler.waiting_sequences():
            place = f"host blocks {sequence.table.host_blocks}" if sequence.table.host_blocks else "no blocks"
            lines.append(f"  {self.names[sequence]}   waits   {sequence.state.value}, {place}")
        for name in ("token_ids", "positions", "slots", "seq_starts", "context_lens", "logit_rows"):
            lines.append(f"  {name:13} {getattr(batch, name).tolist()}")
        lines.append(f"  {'block_tables':13} {batch.block_tables.tolist()}")
        manager = self.engine.scheduler.manager
        lines += [*tier("device", manager.device), *([] if manager.host is None else tier("host", manager.host))]
        self.steps.append("\n".join(lines) + "\n")

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        sampled = [f"{self.names[each]} {bytes(each.token_ids[-1:]).decode()!r}" for each in plan.sampled]
        self.steps[-1] += f"  {'sampled':13} {', '.join(sampled) if sampled else 'nothing'}\n"


def tier(name: str, pool: BlockPool) -> Iterator[str]:
    """A table of the blocks of one tier."""
    states = [
        f"held {pool.references(block)}" if pool.references(block) else "cached" if pool.digest(block) else "free"
        for block in range(pool.total)
    ]
    digests = ["yes" if pool.digest(block) else "-" for block in range(pool.total)]
    for title, cells in ((f"{name} block", range(pool.total)), ("  state", states), ("  digest", digests)):
        yield f"  {title:13} " + " ".join(f"{cell:>6}" for cell in cells)


class Story:
    """An engine with a diary. Sequences are named A, B, … from `first` on, in the order of their arrival."""

    def __init__(self, first: str, settings: StubSettings) -> None:
        self.diary = Diary()
        self.engine = self.diary.engine = stub_engine(settings, recite, self.diary)
        self._next = first

    def submit(self, prompt: str, max_tokens: int, n: int = 1) -> None:
        request = self.engine.submit(prompt.encode(), SamplingParams(n=n, max_tokens=max_tokens, temperature=0))
        for generation in request.generations:
            self.diary.names[generation.sequence] = self._next
            self._next = chr(ord(self._next) + 1)

    def run(self) -> None:
        while self.engine.has_work:
            self.engine.step()


def figures() -> dict[str, str]:
    """Every figure by its name."""
    shared = Story("A", StubSettings(blocks=6, block_size=4, max_num_batched_tokens=8))
    shared.submit("The cat is", 4)
    shared.engine.step()
    shared.submit("The cat a", 3)
    shared.run()
    shared.submit("The cat ", 2)
    shared.run()
    small = Story("D", StubSettings(blocks=5, host_blocks=4, block_size=4, max_num_batched_tokens=20))
    small.submit("Dogs bark at", 3)
    small.submit("Mice ", 3)
    small.run()
    choices = Story("F", StubSettings(blocks=6, block_size=4, max_num_batched_tokens=20))
    choices.submit("The cat is", 2, n=2)
    choices.run()
    counters = small.engine.stats().kv
    return {
        **{f"one {number}": text for number, text in enumerate(shared.diary.steps, 1)},
        **{f"two {number}": text for number, text in enumerate(small.diary.steps, 1)},
        "counters": "".join(f"{name:14} {getattr(counters, name)}\n" for name in type(counters).__slots__),
        **{f"three {number}": text for number, text in enumerate(choices.diary.steps, 1)},
    }


def with_figures(page: str, texts: dict[str, str]) -> str:
    """The page with the text of each figure after its mark. Raises KeyError for a mark of no figure."""
    return MARK.sub(lambda match: match[1] + texts[match[2]] + match[3], page)


@click.command()
@click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(page: Path) -> None:
    """Replaces the figures in PAGE."""
    page.write_text(with_figures(page.read_text(encoding="utf-8"), figures()), encoding="utf-8")


if __name__ == "__main__":
    main()
