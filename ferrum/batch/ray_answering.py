"""Answering lines on several machines: replicas of the model in actors of Ray Data.

Owns: `Replica`, and rounds: whatever Ray loses of a round, with a machine or with an actor, is in the next one, and
whatever it gives twice is kept once, so that every line has one answer whatever Ray does. Answers go to the one program
that writes them. Refuses to know: files.
Specs: BATCH-41 to BATCH-43. Source: Ray's documentation, "Stateful transforms" of Ray Data.
Next: `ferrum.load_test.workload`.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ferrum.api.service import Service
from ferrum.batch.answering import Answerer, answer_all
from ferrum.batch.request_line import RequestLine
from ferrum.batch.result_line import Result
from ferrum.batch.run import check_model
from ferrum.errors import FerrumError, InternalError
from ferrum.server.ray_cluster import Share

LINES_A_BLOCK = 16
"""Lines that go to a replica together, and whose answers come back together."""
LINES_A_ROUND = 100_000
"""Lines that Ray has at a time; beyond its memory, it keeps them on disk."""


@dataclass(frozen=True)
class Replicas:
    """How many there are, and how each is made. `at_a_time`: lines that each has open; `models`: those that have
    answered before, of which each must be one."""

    number: int
    make: Callable[[], Service]
    share: Share
    at_a_time: int
    seed: int
    models: frozenset[str] = frozenset()


class Replica:
    """A model in an actor. Ray calls it from several threads; what is done is done on one event loop. An error that
    keeps it from working is its answer to everything: Ray would start it again for ever."""

    def __init__(self, replicas: Replicas) -> None:
        self._answerer: Answerer | None = None
        self._defect: FerrumError | None = None
        try:
            service = replicas.make()
            check_model(replicas.models, service.names)
            self._answerer = Answerer(service, replicas.seed, replicas.at_a_time)
        except FerrumError as error:
            self._defect = error
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, block: dict[str, Any]) -> dict[str, list[bytes]]:
        kept: list[Result | FerrumError] = []
        if self._answerer is None:
            assert self._defect is not None
            kept.append(self._defect)
        else:
            lines = [pickle.loads(line) for line in block["line"]]
            try:
                answering = answer_all(self._answerer, lines, kept.append)
                asyncio.run_coroutine_threadsafe(answering, self._loop).result()
            except FerrumError as error:
                kept.append(error)
        return {"result": [pickle.dumps(each) for each in kept]}


def answer_on_ray(
    replicas: Replicas, lines: Callable[[], Iterator[RequestLine]], keep: Callable[[Result], bool]
) -> None:
    """Answers all lines; `lines()` are those without an answer, and `keep` tells whether a result was news. Raises the
    error that keeps a replica from working, or InternalError."""
    import ray

    while asked := list(islice(lines(), LINES_A_ROUND)):
        new_results = 0
        try:
            for result in _round(replicas, asked):
                if isinstance(result, FerrumError):
                    raise result
                new_results += keep(result)
        except ray.exceptions.RayError as error:
            raise InternalError(f"Ray failed: {str(error).strip().splitlines()[-1]}") from error
        if not new_results:
            raise InternalError("Ray gives no answers")


def _round(replicas: Replicas, lines: list[RequestLine]) -> Iterator[Result | FerrumError]:
    """The results in the order in which they come, and the errors of replicas."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = -(-len(lines) // LINES_A_BLOCK)
    calls = -(-replicas.at_a_time // LINES_A_BLOCK) + 1
    answers = ray.data.from_items(
        [{"line": pickle.dumps(line)} for line in lines], override_num_blocks=blocks
    ).map_batches(
        Replica,
        fn_constructor_args=(replicas,),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(
            size=replicas.number,
            max_tasks_in_flight_per_actor=calls + 1,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=True,
        ),
        num_cpus=replicas.share.cpus,
        num_gpus=replicas.share.gpus,
    )
    for block in answers.iter_batches(batch_size=None, prefetch_batches=0):
        for result in block["result"]:
            yield pickle.loads(result)
