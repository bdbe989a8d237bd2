"""llama.cpp's tests of its samplers: probabilities before and after one of them, and three of them in every order.

Owns: what the calls in `tests/test-sampling.cpp` mean here. One sampler goes the way of a request; samplers in an order
that requests cannot ask for are the filters by their definition. Refuses to know: how C++ is read.
Specs: SUITE-21. Next: `benchmarks/others.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import InvalidParameter
from ferrum.sample.definition import is_greedy
from ferrum.sample.fast import edited, find_candidates
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.drawing import apply_min_p, apply_top_k, apply_top_p

from .cpp import NotUnderstood, Reader
from .fetch import LLAMA_CPP, Source
from .verdict import Verdict

SOURCE = Source(LLAMA_CPP, "the cases of llama.cpp's samplers")
NEAR = 1e-5  # as in the file
SORTING = ("test_top_k", "test_top_p")
"""Those that leave a list in another order than that of the ids."""
LACKING = {"test_xtc": "XTC", "test_dry": "DRY"}
OUTSIDE = ("test_dist_singleton_rng", "test_perf")
"""About its own random numbers and its own speed."""
NOT_ASKED = "what no request may ask for"
Numbers = Sequence[float]


def run(data: Path) -> Iterator[Verdict]:
    reader = Reader((SOURCE.within(data) / "vendor/llama.cpp/tests/test-sampling.cpp").read_text(encoding="utf-8"))
    known = {*_SETTINGS, *LACKING, "test_penalties", "test_sampler_queue"}
    if unknown := set(re.findall(r"^static void (test_\w+)\(", reader.source, re.MULTILINE)) - known - {*OUTSIDE}:
        raise NotUnderstood(f"nothing is known of {', '.join(sorted(unknown))}")
    for name in sorted(known):
        for number, arguments in enumerate(reader.calls(name)):
            yield _verdict(f"{name}/{number}", name, arguments)


def _verdict(case: str, name: str, arguments: Sequence[Any]) -> Verdict:
    if name in LACKING:
        return Verdict(case, "refused", f"the sampler {LACKING[name]}")
    if name == "test_sampler_queue":
        return _of_queue(case, *arguments)
    try:
        before, expected, params, past = _request(name, *arguments)
    except InvalidParameter as error:
        return Verdict(case, "refused", f"{NOT_ASKED}: {error.field}")
    found = _after(before, params, past)
    if name == "test_typical":  # with what they had before
        found = [one * (other > 0) for one, other in zip(before, found, strict=True)]
    if len(expected) < len(found):
        found = [probability for probability in found if probability > 0]
    if name in SORTING:
        found, expected = sorted(found), sorted(expected)
    near = len(found) == len(expected) and np.allclose(found, expected, rtol=0, atol=NEAR)
    return Verdict(case, "equal") if near else Verdict(case, "different", f"expected {expected}, here {found}")


_SETTINGS: dict[str, Callable[..., dict[str, float]]] = {
    "test_temp": lambda temperature: {"temperature": temperature},
    "test_temp_ext": lambda temperature, delta, exponent: {"temperature": temperature, **_not_dynamic(delta)},
    "test_top_k": lambda k: {"top_k": k},
    "test_top_p": lambda p: {"top_p": p},
    "test_min_p": lambda p: {"min_p": p},
    "test_typical": lambda p: {"typical_p": p},
    "test_top_n_sigma": lambda n: {"top_n_sigma": n},
}


def _not_dynamic(delta: float) -> dict[str, float]:
    if delta:
        raise InvalidParameter("dynamic temperature", "is not known")
    return {}


def _request(name: str, before: Numbers, *rest: Any) -> tuple[Numbers, Numbers, SamplingParams, Sequence[int]]:
    """Probabilities before and after, what a request would ask for, and the tokens that have come."""
    if name != "test_penalties":
        expected, *settings = rest
        return before, expected, SamplingParams(**_SETTINGS[name](*settings)), ()
    past, expected, repetition, frequency, presence = rest
    penalties = {"repetition_penalty": repetition, "frequency_penalty": frequency, "presence_penalty": presence}
    return before, expected, SamplingParams(**penalties), past


def _after(before: Numbers, params: SamplingParams, past: Sequence[int]) -> list[float]:
    """The probabilities that a token is drawn with."""
    state = SamplingState(params, 0, ())
    for token in past:
        state.accept(token)
    logits = np.log(np.array(before, np.float32))
    logits = edited(logits, state) if state.edits_logits else logits
    if is_greedy(params):
        return [float(token == logits.argmax()) for token in range(len(logits))]
    return [float(value) for value in np.exp(find_candidates(logits, params).logprobs(len(logits)))]


def _of_queue(case: str, vocab: int, order: str, top_k: int, top_p: float, min_p: float) -> Verdict:
    """Token i is i times as probable as token 1; so what is left are the last ones, and the file says how many."""
    settings = {"k": ("top_k", top_k), "p": ("top_p", top_p), "m": ("min_p", min_p)}
    filters = {"k": apply_top_k, "p": apply_top_p, "m": apply_min_p}
    try:
        SamplingParams(**dict(settings[sampler] for sampler in order))
    except InvalidParameter as error:
        return Verdict(case, "refused", f"{NOT_ASKED}: {error.field}")
    ops, expected = NumpyOps(), _Queue(vocab)
    with np.errstate(divide="ignore"):
        logits = ops.asarray(np.log(np.arange(vocab, dtype=np.float32))[None].astype(np.float64), "float64")
    for step, sampler in enumerate(order):
        value = settings[sampler][1]
        logits = filters[sampler](ops, logits, ops.asarray([[value]], "int64" if sampler == "k" else "float64"))
        wanted = getattr(expected, sampler)(value)
        left = np.flatnonzero(ops.to_numpy(logits)[0] > -math.inf).tolist()
        if left != list(range(max(vocab - wanted, 1), vocab)):  # token 0 has no probability from the beginning
            return Verdict(case, "different", f"{order!r}, step {step}: {wanted} tokens expected, here {len(left)}")
    return Verdict(case, "equal")


@dataclass
class _Queue:
    """How many tokens the file expects after each sampler; its arithmetic, in float32 as there."""

    vocab: int
    least: int = 0  # the first token that is left
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.vocab

    def k(self, top_k: int) -> int:
        self.size = min(self.size, top_k)
        self.least = max(self.least, self.vocab - top_k)
        return self.size

    def p(self, top_p: float) -> int:
        whole = self.vocab * (self.vocab - 1) // 2 - self.least * (self.least - 1) // 2
        wanted = math.ceil(np.float32(top_p) * np.float32(whole))
        self.least, self.size, held = self.vocab, 0, 0
        while held < wanted or not self.size:
            self.least, self.size = self.least - 1, self.size + 1
            held += self.least
        if self.least == 1:  # token 0 has no probability, and comes along
            self.least, self.size = 0, self.size + 1
        return self.size

    def m(self, min_p: float) -> int:
        share, vocab = np.float32(min_p), np.float32(self.vocab)
        expected = min(max(math.ceil((np.float32(1) - share) * vocab), 1), self.size)
        least = max(math.floor(share * vocab), 1, self.vocab - self.size)
        self.least, self.size = min(least, self.vocab - 1), expected
        return expected
