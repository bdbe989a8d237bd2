"""`python -m ferrum.testing.simulate --seed N --steps M`: many random lives of an engine, until one fails.

Owns: dividing steps into lives, each with its own seed, and reporting the seed that replays a failure. A life depends
only on its seed: on no clock, no hash, no thread. Refuses to know: what happens in a life.
Specs: ENGINE-41. Next: `ferrum.conformance.oracles`.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import asdict

import click

from ferrum.testing.life import Life

STEPS_OF_A_LIFE = 1000


def simulate(seed: int, steps: int) -> Counter[str]:
    """Runs the lives of seeds seed, seed + 1, … with `steps` steps in all -> counts of what happened in them. The
    exception of a life has a note that says how to replay it."""
    totals: Counter[str] = Counter()
    for number, start in enumerate(range(0, steps, STEPS_OF_A_LIFE)):
        length = min(STEPS_OF_A_LIFE, steps - start)
        life = Life(seed + number)
        try:
            life.run(length)
        except BaseException as error:
            error.add_note(f"replay: python -m ferrum.testing.simulate --seed {seed + number} --steps {length}")
            raise
        stats = life.engine.stats()
        totals += Counter(
            lives=1, steps=length, answered=life.answered, tokens=stats.computed_tokens,
            recomputed=stats.preempted_by_recompute, swapped=stats.preempted_by_swap,
            drafted=stats.draft_tokens, accepted=stats.accepted_tokens,
        )  # fmt: skip
        totals += Counter({f"kv {name}": count for name, count in asdict(stats.kv).items() if name != "peak_held"})
    return totals


@click.command()
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first life.")
@click.option("--steps", type=click.IntRange(min=1), default=100_000, show_default=True, help="Steps in all.")
def main(seed: int, steps: int) -> None:
    """Runs a stub engine through random lives and checks everything after every step."""
    began = time.perf_counter()
    try:
        totals = simulate(seed, steps)
    except Exception:
        click.echo(traceback.format_exc(), err=True)
        raise SystemExit(1) from None
    for name, count in totals.items():
        click.echo(f"{name:20} {count:12,}")
    click.echo(f"all is well, after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
