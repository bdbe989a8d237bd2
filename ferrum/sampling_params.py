"""What a request may ask of the sampler: every parameter, its meaning, its limits.

Owns: `SamplingParams` and what it holds; what is accepted here works. Names and meanings are vLLM's, where it has them.
Refuses to know: how any of it is computed.
Specs: SAMPLE-15, SAMPLE-16, SAMPLE-29. Next: `ferrum.types`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ferrum.errors import InvalidParameter

ALL_TOKENS = -1
"""A number of log probabilities that means: of every token in the vocabulary."""
LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")
LARGEST_BIAS = 100.0
MOST_PENALTY = 2.0
MOST_REPETITION_PENALTY = 100.0
"""A factor; its inverse is the least, a reward. Logits stay finite."""


@dataclass(frozen=True)
class StructuredOutputs:
    """A grammar that the whole answer must match; exactly one of these is given. `json`: a JSON schema, as an object or
    as text; `regex`: a regular expression (the syntax of Rust's regex library); `choice`: one of these texts;
    `grammar`: a context-free grammar in Lark's syntax or in llama.cpp's GBNF."""

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        if self.choice is not None:
            object.__setattr__(self, "choice", tuple(self.choice))
        given = [name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            what = "nothing is" if not given else f"{' and '.join(given)} are"
            raise InvalidParameter("structured_outputs", f"needs one of json, regex, choice and grammar; {what} given")
        if not all(isinstance(value, str) for value in (self.regex, self.grammar) if value is not None):
            raise InvalidParameter("structured_outputs", f"{given[0]} must be text")
        if self.choice is not None and not (self.choice and all(isinstance(text, str) for text in self.choice)):
            raise InvalidParameter("structured_outputs", "choice must hold texts, at least one")
        self._check_schema()

    def _check_schema(self) -> None:
        if self.json is None:
            return
        try:
            schema = json.loads(self.json) if isinstance(self.json, str) else json.loads(json.dumps(self.json))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidParameter("structured_outputs", f"json is not a JSON schema: {error}") from error
        if not isinstance(schema, (dict, bool)):
            raise InvalidParameter("structured_outputs", f"json must be a JSON object, not {schema!r}")

    @property
    def kind(self) -> str:
        """Which of the fields is given."""
        return next(name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None)

    @property
    def text(self) -> str:
        """What is given, as text: JSON for a schema and for choices."""
        value = getattr(self, self.kind)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen, when a text ends, and what is told of it.

    `temperature=0` is exact argmax (the lowest id on a tie). `top_k=0` (or -1), `top_p=1`, `min_p=0`, `typical_p=1` and
    `mirostat=0` switch those filters off, `repetition_penalty=1` and 0 for the other two the penalties. `seed=None`
    draws a seed, which the completion reports. Raises `InvalidParameter`.
    """

    n: int = 1
    max_tokens: int | None = 16  # None: until the context is full
    min_tokens: int = 0  # before so many, nothing ends the text: no end-of-sequence or stop token, no stop string
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    mirostat: int = 0  # 2: keep the surprise of tokens near mirostat_tau (bits)
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1  # how fast it is steered there
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # token id -> what is added to its logit
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None  # of each generated token, and of so many most likely ones; -1: of all
    prompt_logprobs: int | None = None  # the same for the prompt
    logprobs_mode: str = "raw_logprobs"  # of the model, or "processed_logprobs": of what the token was drawn from
    structured_outputs: StructuredOutputs | None = None

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids or ()))
        object.__setattr__(self, "top_k", 0 if self.top_k == -1 else self.top_k)
        self._check_lengths()
        self._check_filters()
        self._check_penalties()
        self._check_ends()
        self._check_logprobs()
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(name, f"must be true or false, not {getattr(self, name)!r}")
        structure = self.structured_outputs
        if structure is not None and not isinstance(structure, StructuredOutputs):
            raise InvalidParameter("structured_outputs", f"must be StructuredOutputs, not {structure!r}")

    def _check_lengths(self) -> None:
        self._check_integer("n", 1)
        self._check_integer("min_tokens", 0)
        if self.max_tokens is not None:
            self._check_integer("max_tokens", 1)
            if self.min_tokens > self.max_tokens:
                raise InvalidParameter("min_tokens", f"is {self.min_tokens}, but max_tokens is {self.max_tokens}")
        if self.seed is not None:
            self._check_integer("seed", None)

    def _check_filters(self) -> None:
        self._check_integer("top_k", 0)
        self._check_real("temperature", 0.0, math.inf)
        self._check_real("min_p", 0.0, 1.0)
        for name in ("top_p", "typical_p"):
            self._check_real(name, 0.0, 1.0)
            if getattr(self, name) == 0:
                raise InvalidParameter(name, "must be above 0 and at most 1, not 0")
        if self.mirostat not in (0, 2) or isinstance(self.mirostat, bool):
            raise InvalidParameter("mirostat", f"must be 0 (off) or 2 (version 2), not {self.mirostat!r}")
        self._check_real("mirostat_tau", 0.0, math.inf)
        self._check_real("mirostat_eta", 0.0, 1.0)

    def _check_penalties(self) -> None:
        self._check_real("repetition_penalty", 1 / MOST_REPETITION_PENALTY, MOST_REPETITION_PENALTY)
        for name in ("presence_penalty", "frequency_penalty"):
            self._check_real(name, -MOST_PENALTY, MOST_PENALTY)
        if not isinstance(self.logit_bias, Mapping):
            if self.logit_bias is not None:
                raise InvalidParameter("logit_bias", f"must map token ids to numbers, not {self.logit_bias!r}")
            object.__setattr__(self, "logit_bias", {})
        bias: dict[int, float] = {}
        for token, value in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise InvalidParameter("logit_bias", f"must map token ids to numbers; {token!r} is no token id")
            check_real("logit_bias", value, -LARGEST_BIAS, LARGEST_BIAS)
            bias[token] = float(value)
        object.__setattr__(self, "logit_bias", bias)  # a copy: nobody changes it later

    def _check_ends(self) -> None:
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise InvalidParameter("stop", f"must hold non-empty strings, not {text!r}")
        for token in self.stop_token_ids:
            if isinstance(token, bool) or not isinstance(token, int):
                raise InvalidParameter("stop_token_ids", f"must hold token ids, not {token!r}")

    def _check_logprobs(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._check_integer(name, ALL_TOKENS)
        if self.logprobs_mode not in LOGPROBS_MODES:
            known = " or ".join(LOGPROBS_MODES)
            raise InvalidParameter("logprobs_mode", f"must be {known}, not {self.logprobs_mode!r}")

    def _check_integer(self, name: str, low: int | None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
            bound = "" if low is None else f" of at least {low}"
            raise InvalidParameter(name, f"must be a whole number{bound}, not {value!r}")

    def _check_real(self, name: str, low: float, high: float) -> None:
        check_real(name, getattr(self, name), low, high)


def check_real(name: str, value: object, low: float, high: float) -> None:
    """Raises InvalidParameter for what is no finite number from low to high."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or math.isinf(value):  # type: ignore[operator,arg-type]
        bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise InvalidParameter(name, f"must be a number {bound}, not {value!r}")


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "precise": {"temperature": 0.3, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
    "creative": {"temperature": 1.1, "top_k": 0, "top_p": 0.95, "min_p": 0.05, "presence_penalty": 0.3},
}
"""Sets of parameters that go well together, by name."""


def preset(name: str, **changes: Any) -> SamplingParams:
    """The parameters of a preset, but for `changes`. Raises InvalidParameter for an unknown name."""
    if name not in PRESETS:
        raise InvalidParameter("preset", f"must be one of {', '.join(PRESETS)}, not {name!r}")
    return SamplingParams(**{**PRESETS[name], **changes})
