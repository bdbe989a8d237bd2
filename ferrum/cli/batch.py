"""`ferrum-ref batch IN.jsonl -o OUT.jsonl`: answers each line of a file of requests.

Owns: the order of work (both files are read before a model is loaded), the lines on stderr, the exit code: 0 if every
line has an answer without an error, 1 if lines have errors, 130 after Ctrl-C. Refuses to know: how lines are answered.
Specs: BATCH-30 to BATCH-33. See: `docs/batch.md`. Next: `ferrum.cli.conformance`.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ferrum.cli.errors import FAILED
from ferrum.cli.options import EngineOptions, debug_option, engine_options, ray_options, service_options
from ferrum.cli.service_flags import RayFlags, ServiceFlags, replica_maker
from ferrum.cli.terminal import Progress
from ferrum.errors import ConfigError

if TYPE_CHECKING:
    from ferrum.batch.run import Run

TOKENS_OF_A_STEP = 2048
"""No client waits for a stream here, so long prompts need no small steps."""


@click.command(context_settings={"default_map": {"max_num_batched_tokens": TOKENS_OF_A_STEP}})
@click.argument("requests", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT",
              help="File of the answers, one on each line. If it exists, only missing answers are added.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N",
              help="Seed of requests without one; the custom_id of a line is mixed into it.")  # fmt: skip
@click.option("--retry-errors", is_flag=True, help="Answer the lines again whose answers are errors.")
@ray_options
@service_options
@engine_options
@debug_option
def batch(
    requests: str,
    output: Path,
    seed: int,
    retry_errors: bool,
    ray: RayFlags,
    service: ServiceFlags,
    engine: EngineOptions,
) -> None:
    """Answer a file of requests.

    Each line of IN (- for standard input) is a request in the format of OpenAI's batch files. After an interruption the
    same command continues: it answers only the lines that have no answer yet.
    """
    check_installed()
    ray.check()
    service.check()
    if str(output) == "-":
        raise click.BadParameter("must be a file: the next run looks there for what is answered", param_hint="--output")
    from ferrum.batch.answer_file import answer_file
    from ferrum.batch.ledger import Ledger
    from ferrum.batch.run import Run
    from ferrum.batch.source import request_file

    progress = Progress()
    with request_file(requests) as file, answer_file(output) as answers, Ledger() as ledger:
        run = Run(file, answers, ledger, seed)
        with progress.during(f"reading {requests}"):
            run.take_stock(retry_errors=retry_errors)
        run.watch = Watch(run, progress).show
        try:
            if not run.complete:
                if ray.ray:
                    answer_on_replicas(run, ray, service, engine)
                else:
                    answer(run, service, engine, progress)
        except KeyboardInterrupt:
            progress.note(f"{state(run)}; the same command goes on")
            raise
        progress.note(state(run))
        if ledger.counts.failed:
            raise click.exceptions.Exit(FAILED)


def answer(run: Run, flags: ServiceFlags, engine: EngineOptions, progress: Progress) -> None:
    """Answers all lines that have no answer yet."""
    import asyncio

    from ferrum.batch.answering import LINES_A_SEQUENCE, Answerer, answer_all
    from ferrum.batch.run import check_model

    service = flags.service(engine, progress)

    async def answer_and_close() -> None:
        try:
            check_model(run.models, service.names)
            run.watch()
            answerer = Answerer(service, run.seed, LINES_A_SEQUENCE * flags.max_num_seqs)
            await answer_all(answerer, run.lines(), run.keep)
        finally:
            service.close()  # while the event loop runs, which the engine needs for its last events

    asyncio.run(answer_and_close())
    run.check_complete()


def answer_on_replicas(run: Run, ray: RayFlags, flags: ServiceFlags, engine: EngineOptions) -> None:
    """Does the same on several machines, with Ray."""
    from ferrum.batch.answering import LINES_A_SEQUENCE
    from ferrum.batch.ray_answering import Replicas, answer_on_ray
    from ferrum.server.ray_cluster import cluster

    number = ray.replicas or 1
    run.watch()
    with cluster(ray.address, number, engine.backend, engine.threads) as share:
        at_a_time = LINES_A_SEQUENCE * flags.max_num_seqs
        make = replica_maker(flags, engine)
        answer_on_ray(Replicas(number, make, share, at_a_time, run.seed, frozenset(run.models)), run.lines, run.keep)
    run.check_complete()


class Watch:
    """Progress of a run, and an estimate of the remaining time."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._began = time.monotonic()
        self._before = run.ledger.counts.answered

    def show(self) -> None:
        counts = self._run.ledger.counts
        passed, new_answers = time.monotonic() - self._began, counts.answered - self._before
        line = f"{counts.answered} of {counts.lines} lines, {counts.failed} with errors"
        if new_answers and passed:
            remaining = duration((counts.lines - counts.answered) * passed / new_answers)
            line += f", {self._run.tokens / passed:.0f} tok/s, {remaining} left"
        self._progress.show(line)


def state(run: Run) -> str:
    """Numbers of answered, failed and remaining lines."""
    counts = run.ledger.counts
    line = f"{counts.answered} of {counts.lines} lines answered"
    if counts.failed:
        line += f", {counts.failed} with errors (--retry-errors answers them again)"
    if counts.strange:
        line += f"; {counts.strange} more answers are there, to lines that the input does not have"
    return line


def duration(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def check_installed() -> None:
    """Raises ConfigError if a package of the extra is missing."""
    if find_spec("pydantic") is None:
        raise ConfigError("batch files need pydantic: pip install 'ferrum-ref[server]'")
