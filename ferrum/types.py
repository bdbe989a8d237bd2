"""What comes out of the engine: completions, chunks, log probabilities, vectors. (What goes in: `sampling_params`.)

Owns: response types, and the names that go with requests. Refuses to know: how any of it is computed.
Next: `ferrum.files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from ferrum.errors import FerrumError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
class Usage:
    """Token counts of one prompt and all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were in memory already
    draft_tokens: int = 0  # proposed, and computed before they had come
    accepted_tokens: int = 0  # of those, that came


@dataclass(frozen=True)
class Timings:
    """Seconds and rates of one prompt, measured in the engine. A rate is 0 where nothing was there to measure."""

    ttft_s: float = 0.0  # submission to first token
    prefill_tok_s: float = 0.0  # prompt tokens per second up to the first token
    decode_tok_s: float = 0.0  # generated tokens per second after the first


@dataclass(frozen=True)
class DecodeSteps:
    """Steps of one new token for each of a few sequences, which a backend may record and replay: how many there were,
    and how many were replayed. `refusal`: what the first step that could not be recorded did. Of a backend that records
    nothing all is 0."""

    total: int = 0
    replayed: int = 0
    refusal: str | None = None

    def and_one(self, *, replayed: bool) -> DecodeSteps:
        return replace(self, total=self.total + 1, replayed=self.replayed + replayed)


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a memory that is not the host's."""

    free: int
    total: int


@dataclass(frozen=True)
class Logprob:
    """What is told of a token in its place: the logarithm of its probability (-inf where it has none), its rank among
    all tokens (1 is the most likely, equal ones by their ids), its text."""

    logprob: float
    rank: int
    decoded_token: str | None = None


Logprobs = Mapping[int, Logprob]
"""By token id, of one place in a text: the token that stands there first, then the most likely ones, best first."""


@dataclass(frozen=True)
class Choice:
    """One sampled continuation. `logprobs`: one entry per token, if they were asked for."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int
    logprobs: tuple[Logprobs, ...] | None = None


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt. With n > 1 the fields of the first choice stand at the top. `prompt_logprobs`: one
    entry per token of the prompt, None for the first, which nothing comes before. `error`: why a choice ended with the
    finish_reason "error", if one did."""

    choices: tuple[Choice, ...]
    prompt_token_ids: tuple[int, ...]
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    error: FerrumError | None = None

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

    @property
    def logprobs(self) -> tuple[Logprobs, ...] | None:
        return self.choices[0].logprobs


@dataclass(frozen=True)
class StreamChunk:
    """One step of a stream: a token and the text it completed, which may be empty. `finish_reason` is None until the
    last chunk; the last chunk may carry held-back text and no token."""

    text: str
    token_id: int | None
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    LAST = "last"  # that of the last token, which has seen all others
    CLS = "cls"  # that of the first token, which many an encoder is trained to say it with


@dataclass(frozen=True, eq=False)
class Embedding:
    """A text as a vector: float32 [hidden size, or fewer where fewer were asked for]."""

    vector: NDArray[np.float32]
    prompt_tokens: int


Message = Mapping[str, Any]
"""One chat message: at least {"role": ..., "content": ...}."""
