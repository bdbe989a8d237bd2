"""The trial of a large structure in another process: if it takes too much time or memory, only that process ends.

Owns: the limits in time and memory, that process, and its report. The library for grammars has limits of its own,
but not for everything: a schema of forty characters can take minutes and gigabytes, and a native stack that is full
ends a process. Refuses to know: how the structure is used.
Specs: SAMPLE-35. Next: `ferrum.sample.grammars.grammar`.
"""

from __future__ import annotations

import json
import pickle
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferrum.children import own_environment, python_command
from ferrum.errors import InternalError, ResourceExhausted
from ferrum.sample.grammars.grammar_library import (
    STACK,
    advance,
    make_matcher,
    make_tokenizer,
    mask,
    on_large_stack,
    source,
)
from ferrum.sample.grammars.refusals import CannotFollow, in_short
from ferrum.sampling_params import StructuredOutputs

SECONDS = 1.5
"""Seconds of processor time to compile a structure."""
BYTES = 256 << 20
STEPS = 8
STEP_SECONDS = 0.1
"""Seconds of processor time to compute the mask after one of the first tokens."""
PATIENCE = 60.0
"""Seconds by the clock, on a busy machine."""
_LIMITS = frozenset((signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGBUS))
"""The signals that end a process at one of its limits: time, stack, memory, or the memory of the machine."""
TOO_MUCH = f"to make it takes more than {SECONDS:g} s or {BYTES >> 20} MiB"


@dataclass(frozen=True)
class Tried:
    """A structure that can be compiled: in the library's own language, and its size in bytes."""

    source: str
    size: int


def try_out(
    tokens: Sequence[bytes], special_ids: Sequence[int], eos_token_ids: Sequence[int], structure: StructuredOutputs
) -> Tried:
    """Raises CannotFollow for a structure that cannot be compiled within the limits."""
    import subprocess  # and all that comes with it: few answers need it, and every start imports this module

    try:
        process = subprocess.run(
            python_command("-m", __name__),
            input=pickle.dumps((tokens, special_ids, eos_token_ids, structure)),
            capture_output=True,
            env=own_environment(),
            start_new_session=True,  # Ctrl-C must reach only the process that waits
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotFollow(TOO_MUCH) from None
    except OSError as error:
        raise ResourceExhausted(f"a process to try a large structure in cannot be started: {error.strerror}") from error
    if -process.returncode in _LIMITS:
        raise CannotFollow(TOO_MUCH)
    if process.returncode:
        last_lines = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise InternalError(f"a large structure could not be tried out: {in_short(' '.join(last_lines))}")
    answer = json.loads(process.stdout)
    if "reason" in answer:
        raise CannotFollow(answer["reason"])
    return Tried(answer["source"], answer["size"])


def main() -> None:
    """The program of the other process."""
    tokens, special_ids, eos_token_ids, structure = pickle.load(sys.stdin.buffer)
    tokenizer = make_tokenizer(tokens, special_ids, eos_token_ids, _Longest(tokens))
    _limit()
    try:
        # a smaller stack than the one it is made on afterwards: what fits here fits there
        answer = on_large_stack(lambda: _try(tokenizer, len(tokens), structure), STACK // 2)
    except CannotFollow as error:
        answer = {"reason": str(error)}
    except MemoryError:
        answer = {"reason": TOO_MUCH}
    sys.stdout.write(json.dumps(answer) + "\n")


def _try(tokenizer: Any, vocab_size: int, structure: StructuredOutputs) -> dict[str, Any]:
    before = _memory(_RESIDENT) or 0
    grammar = source(structure)
    matcher = make_matcher(tokenizer, grammar)
    size = (_memory(_RESIDENT) or 0) - before
    matcher = matcher.deep_copy()
    mask(matcher)
    for number in range(STEPS):
        bits = np.unpackbits(np.frombuffer(mask(matcher), np.uint8), bitorder="little")[:vocab_size]
        places = np.flatnonzero(bits).tolist()
        if matcher.is_stopped() or not places:
            break
        began = time.thread_time()
        advance(matcher, random.Random(number).choice(places))
        if not matcher.is_stopped():
            mask(matcher)
        if time.thread_time() - began > STEP_SECONDS:
            raise CannotFollow(f"what may follow one token takes more than {STEP_SECONDS:g} s")
    return {"source": grammar, "size": max(size, len(grammar))}


class _Longest:
    """Text to tokens, each as long as possible, for the library's text that has only one continuation."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._ids = {token: index for index, token in enumerate(tokens) if token}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str) -> list[int]:
        content, ids, start = text.encode(), [], 0
        while start < len(content):
            for end in range(min(start + self._longest, len(content)), start, -1):
                index = self._ids.get(content[start:end])
                if index is not None:
                    ids.append(index)
                    break
            start = end
        return ids


def _limit() -> None:
    """Sets the limits at which this process ends."""
    try:
        import resource
    except ImportError:  # no such limits here: the time by the clock remains
        return
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    data = _memory(_DATA) if sys.platform == "linux" else None
    if data is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (data + STACK + BYTES,) * 2)


_RESIDENT, _DATA = 1, 5
"""Indices in the file in which Linux reports a process's memory."""


def _memory(place: int) -> int | None:
    """The memory of this process in bytes; None if the system does not report it."""
    try:
        import resource

        with open("/proc/self/statm") as facts:
            return int(facts.read().split()[place]) * resource.getpagesize()
    except (ImportError, OSError):
        return None


if __name__ == "__main__":
    main()
