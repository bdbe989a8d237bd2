"""What goes into the engine and what comes out: sampling parameters, completions, stream chunks.

Owns: request and response types, their validation. Refuses to know: how any of it is computed.
Specs: SAMPLE. Next: `ferrum.tensor.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from ferrum.errors import InvalidParameter


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end-of-sequence token, a stop token or a stop string
    LENGTH = "length"  # max_tokens or the end of the context
    CANCELLED = "cancelled"
    ERROR = "error"


class Priority(IntEnum):
    """How urgent a request is, to a priority scheduler."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen; names and meanings are vLLM's.

    `temperature=0` is exact argmax (the lowest id on a tie). `top_k=0` (or -1), `top_p=1` and `min_p=0` switch
    those filters off. `seed=None` draws a seed, which the completion reports. Raises `InvalidParameter`.
    """

    n: int = 1
    max_tokens: int | None = 16  # None: until the context is full
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        object.__setattr__(self, "top_k", 0 if self.top_k == -1 else self.top_k)
        self._check_integer("n", 1)
        if self.max_tokens is not None:
            self._check_integer("max_tokens", 1)
        self._check_integer("top_k", 0)
        self._check_real("temperature", self.temperature, 0.0, math.inf)
        self._check_real("top_p", self.top_p, 0.0, 1.0)
        self._check_real("min_p", self.min_p, 0.0, 1.0)
        if self.top_p == 0:
            raise InvalidParameter("top_p", "must be above 0 and at most 1, not 0")
        if self.seed is not None:
            self._check_integer("seed", None)
        for text in stop:
            if not isinstance(text, str) or not text:
                raise InvalidParameter("stop", f"must hold non-empty strings, not {text!r}")
        for token in self.stop_token_ids:
            if isinstance(token, bool) or not isinstance(token, int):
                raise InvalidParameter("stop_token_ids", f"must hold token ids, not {token!r}")

    def _check_integer(self, name: str, low: int | None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
            bound = "" if low is None else f" of at least {low}"
            raise InvalidParameter(name, f"must be a whole number{bound}, not {value!r}")

    def _check_real(self, name: str, value: float, low: float, high: float) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high or math.isinf(value):
            bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
            raise InvalidParameter(name, f"must be a number {bound}, not {value!r}")


@dataclass(frozen=True)
class Usage:
    """Token counts of one prompt and all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were in memory already


@dataclass(frozen=True)
class Timings:
    """Seconds and rates of one prompt, measured in the engine. A rate is 0 where nothing was there to measure."""

    ttft_s: float = 0.0  # submission to first token
    prefill_tok_s: float = 0.0  # prompt tokens per second up to the first token
    decode_tok_s: float = 0.0  # generated tokens per second after the first


@dataclass(frozen=True)
class Choice:
    """One sampled continuation."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt. With n > 1 the fields of the first choice stand at the top."""

    choices: tuple[Choice, ...]
    prompt_token_ids: tuple[int, ...]
    usage: Usage
    timings: Timings = field(default_factory=Timings)

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        return self.choices[0].finish_reason

    @property
    def seed(self) -> int:
        return self.choices[0].seed


@dataclass(frozen=True)
class StreamChunk:
    """One step of a stream: a token and the text it completed, which may be empty. `finish_reason` is None until the
    last chunk; the last chunk may carry held-back text and no token."""

    text: str
    token_id: int | None
    finish_reason: FinishReason | None = None


Message = Mapping[str, Any]
"""One chat message: at least {"role": ..., "content": ...}."""
