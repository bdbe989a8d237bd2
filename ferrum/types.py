"""The results of an engine: completions, chunks, log probabilities, vectors.

Owns: the types of results, and the enumerations that requests use. Refuses to know: how results are computed.
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
    """How urgent a request is; the priority scheduler runs higher values first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True)
class Usage:
    """Token counts of one prompt and all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # tokens of the prompt whose keys and values were in memory already
    draft_tokens: int = 0  # proposed tokens that the model has judged
    accepted_tokens: int = 0  # proposed tokens that were right


@dataclass(frozen=True)
class Timings:
    """Seconds and rates of one prompt, measured in the engine. A rate without a measurement is 0."""

    ttft_s: float = 0.0  # submission to first token
    prefill_tok_s: float = 0.0  # prompt tokens per second up to the first token
    decode_tok_s: float = 0.0  # generated tokens per second after the first


@dataclass(frozen=True)
class DecodeSteps:
    """Counts of decode steps (one new token for each of a few sequences), which a backend may record and replay. A
    backend that records nothing leaves all of them 0."""

    total: int = 0
    replayed: int = 0
    refusal: str | None = None  # the operation because of which the first step could not be recorded

    def and_one(self, *, replayed: bool) -> DecodeSteps:
        return replace(self, total=self.total + 1, replayed=self.replayed + replayed)


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a device's own memory."""

    free: int
    total: int


@dataclass(frozen=True)
class Logprob:
    """How likely a token was at its position."""

    logprob: float  # natural logarithm of its probability; -inf for probability 0
    rank: int  # among all tokens; 1 is the most likely; equally likely ones by their ids
    decoded_token: str | None = None  # its text


Logprobs = Mapping[int, Logprob]
"""For one position of a text, by token id: first the token at that position, then the most likely ones, best first."""


@dataclass(frozen=True)
class Choice:
    """One sampled continuation."""

    index: int  # from 0 to n - 1
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int  # with this seed the same parameters give the same choice again
    logprobs: tuple[Logprobs, ...] | None = None  # one entry per token, if the request asks for them


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt. `text`, `token_ids` and so on are those of the first choice."""

    choices: tuple[Choice, ...]
    prompt_token_ids: tuple[int, ...]
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None  # one entry per token; None for the first token
    error: FerrumError | None = None  # the error of a choice whose finish_reason is "error"

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
    """How the vectors of a text's tokens become one vector."""

    MEAN = "mean"  # the mean of all of them
    LAST = "last"  # the vector of the last token, which depends on all tokens of a decoder's input
    CLS = "cls"  # the vector of the first token, with which many encoders are trained


@dataclass(frozen=True, eq=False)
class Embedding:
    """A text as a vector."""

    vector: NDArray[np.float32]  # [hidden size], or [dimensions] if the call asks for fewer
    prompt_tokens: int


Message = Mapping[str, Any]
"""One chat message: at least {"role": ..., "content": ...}."""
