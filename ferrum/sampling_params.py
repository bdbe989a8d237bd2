"""What a request may ask of the sampler: every parameter, its meaning, its limits.

Owns: `SamplingParams` and what it holds; what is accepted here works. Names and meanings are vLLM's, where it has them.
Refuses to know: how any of it is computed.
Specs: SAMPLE-15, SAMPLE-16, SAMPLE-29, SAMPLE-32. Next: `ferrum.parameter`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ferrum.errors import InvalidParameter, quoted
from ferrum.given import flag, items, one_or_more, pairs, real, text, whole
from ferrum.parameter import EDIT, FILTER, Number, number, numbers_of
from ferrum.speculation import parse_speculate

ALL_TOKENS = -1
"""A number of log probabilities that means: of every token in the vocabulary."""
LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")
LARGEST_BIAS = 100.0
MOST_PENALTY = 2.0
MOST_REPETITION_PENALTY = 100.0
"""A factor; the smallest one is its inverse. With these bounds logits stay finite."""
MOST_SIGMAS = 1e6
"""More standard deviations than any logit can be away from the largest one, and few enough that squares stay finite."""
MOST_SEED_BITS = 1024
MOST_STOP_STRINGS = 64
MOST_STOP_CHARACTERS = 1 << 14
"""Of all stop strings together."""
MOST_STRUCTURE = 1 << 18
"""Characters of a schema, an expression, a grammar, or of all choices as JSON."""


@dataclass(frozen=True)
class StructuredOutputs:
    """A grammar that the whole answer must match: exactly one of json, regex, choice and grammar."""

    json: str | Mapping[str, Any] | bool | None = None  # a JSON schema, as an object or as text; kept as text
    regex: str | None = None  # a regular expression, in the syntax of Rust's regex library
    choice: tuple[str, ...] | None = None  # the answer is one of these texts
    grammar: str | None = None  # a context-free grammar, in Lark's syntax or in llama.cpp's GBNF
    one_of_as_any_of: bool = False  # for schemas. True: more than one part of a `oneOf` may fit
    strict_formats: bool = False  # for schemas. True: an unknown `format` is refused instead of ignored

    def __post_init__(self) -> None:
        given = [name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            what = "nothing is" if not given else f"{' and '.join(given)} are"
            _refuse(f"needs one of json, regex, choice and grammar; {what} given")
        (name,) = given
        for way in ("one_of_as_any_of", "strict_formats"):
            value: object = getattr(self, way)
            if value is not True and value is not False:
                _refuse(f"{way} must be true or false, not {quoted(value)}")
            if value and name not in ("json", "grammar"):
                _refuse(f"{way} is for schemas, and {name} is given")
        read: Callable[[Any], Any] = {"json": _schema, "choice": _choices}.get(name, lambda value: _plain(name, value))
        object.__setattr__(self, name, read(getattr(self, name)))

    @property
    def kind(self) -> str:
        """Which of the fields is given."""
        return next(name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None)

    @property
    def text(self) -> str:
        """The structure as text: JSON for a schema and for choices."""
        value: str | tuple[str, ...] = getattr(self, self.kind)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse(message: str) -> NoReturn:
    raise InvalidParameter("structured_outputs", message)


def _plain(name: str, value: object) -> str:
    found = text(value)
    if found is None:
        _refuse(f"{name} must be text, not {quoted(value)}")
    return _short(name, found)


def _short(name: str, found: str) -> str:
    if len(found) > MOST_STRUCTURE:
        _refuse(f"{name} must have at most {MOST_STRUCTURE} characters")
    try:
        found.encode()
    except UnicodeEncodeError:
        _refuse(f"{name} holds half of a surrogate pair, which is no character: {quoted(found)}")
    return found


def _choices(value: object) -> tuple[str, ...]:
    texts = [text(choice) for choice in one_or_more("structured_outputs", value, "choices")]
    found = tuple(choice for choice in texts if choice is not None)
    if not found or len(found) < len(texts):
        _refuse("choice must hold texts, at least one")
    _short("choice", json.dumps(found, ensure_ascii=False))
    return found


def _schema(value: object) -> str:
    """A schema as JSON. A schema that is given as text is parsed and written again, so that equal schemas are equal
    texts."""
    try:
        given = _written(value) if text(value) is None else _plain("json", value)
        schema = json.loads(given, parse_constant=_no_constant)
        if schema is True:
            schema = {}  # the same schema as true, as an object: the library for grammars accepts only objects
        if isinstance(schema, dict):
            return _short("json", json.dumps(schema, ensure_ascii=False, allow_nan=False))
    except InvalidParameter:
        raise
    except Exception as error:  # bad JSON, nesting that is too deep, huge numbers, objects whose methods fail
        _refuse(f"json is not a JSON schema: {quoted(str(error))[1:-1]}")
    _refuse("json allows nothing" if schema is False else f"json must be a JSON object, not {quoted(schema)}")


def _written(value: object) -> str:
    """The value as JSON, up to the limit: a small object that contains one part many times can be an endless text."""
    parts, length = [], 0
    for part in json.JSONEncoder(ensure_ascii=False, allow_nan=False).iterencode(
        dict(value) if isinstance(value, Mapping) else value
    ):
        parts.append(part)
        length += len(part)
        if length > MOST_STRUCTURE:
            break
    return _short("json", "".join(parts))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen, when a text ends, and what is reported of its tokens.

    `temperature=0` is exact argmax (the lowest id on a tie). Edits (the penalties, `logit_bias`) change logits, filters
    (from `top_n_sigma` to `mirostat`) remove tokens; the default of each switches it off. Raises `InvalidParameter`,
    which names the field.
    """

    # fmt: off
    n: int = number(1, "Number of answers to one prompt.", least=1)
    max_tokens: int | None = number(16, "The answer has at most N tokens.", least=1, optional=True)  # None: no limit
    min_tokens: int = number(0, "The answer has at least N tokens: until then stop strings are ignored, and an end "
                             "token is chosen only if no other token is possible.")
    temperature: float = number(1.0, "Randomness of the choice. 0: always the most likely token; 1: the model's own "
                                "probabilities; above 1: unlikely tokens become more likely.")
    top_n_sigma: float = number(0.0, "Choose only among tokens whose logit is at most X standard deviations below the "
                                "largest logit; the temperature does not change which ones; 0: among all.",
                                most=MOST_SIGMAS, also_off=-1, stage=FILTER, kw_only=True)
    top_k: int = number(0, "Choose only among the N most likely tokens; 0: among all.", stage=FILTER, also_off=-1)
    top_p: float = number(1.0, "Choose only among the most likely tokens that together have probability X (nucleus "
                          "sampling); 1: among all.", most=1, above_least=True, stage=FILTER)
    min_p: float = number(0.0, "Choose only among tokens at least X times as likely as the most likely one; 0: among "
                          "all.", most=1, stage=FILTER)
    typical_p: float = number(1.0, "Choose only among the tokens whose surprise (-log of the probability) is closest "
                              "to the average surprise, until they have probability X together (locally typical "
                              "sampling); 1: among all.", most=1, above_least=True, stage=FILTER)
    mirostat: int = number(0, "2: exclude tokens whose surprise is above a limit, and adjust the limit after each "
                           "token so that the average surprise of the text stays near a target, tau (Mirostat 2); "
                           "0: off.",
                           choices=(0, 2), stage=FILTER)
    mirostat_tau: float = number(5.0, "With mirostat: the target of the average surprise, in bits per token; a lower "
                                 "value gives a more predictable text.")
    mirostat_eta: float = number(0.1, "With mirostat: how fast the limit changes, from 0 (never) to 1.", most=1)
    repetition_penalty: float = number(1.0, "Above 1: tokens that are in the prompt or the answer become less likely, "
                                       "except those that end a text (positive logits are divided by X, others "
                                       "multiplied); 1: off.",
                                       least=1 / MOST_REPETITION_PENALTY, most=MOST_REPETITION_PENALTY, stage=EDIT)
    presence_penalty: float = number(0.0, "Subtract X from the logit of each token that is in the answer, so that new "
                                     "words become more likely; 0: off.",
                                     least=-MOST_PENALTY, most=MOST_PENALTY, stage=EDIT)
    frequency_penalty: float = number(0.0, "Subtract X from the logit of a token for each time it is in the answer; 0: "
                                      "off.", least=-MOST_PENALTY, most=MOST_PENALTY, stage=EDIT)
    # fmt: on
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # token id -> number added to its logit
    seed: int | None = None  # None: one is drawn, and reported by the completion
    stop: tuple[str, ...] = ()  # texts that end the answer
    stop_token_ids: tuple[int, ...] = ()  # tokens that end the answer
    ignore_eos: bool = False  # True: the model's end tokens do not end the answer
    include_stop_str_in_output: bool = False  # True: the text of what ended the answer belongs to it
    skip_special_tokens: bool = True  # False: special tokens have their text in the answer
    logprobs: int | None = None  # report each generated token and this many most likely ones; -1: the whole vocabulary
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt
    logprobs_mode: str = "raw_logprobs"  # of the model; "processed_logprobs": of the distribution that was drawn from
    structured_outputs: StructuredOutputs | None = None  # a grammar that the answer matches
    speculate: str | None = None  # proposer: "ngram", "ngram:N", "draft", "draft:N", "off"; None: the engine's setting

    def __post_init__(self) -> None:
        self._read_numbers()
        self._read_bias()
        self._read_ends()
        self._read_logprobs()
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            self._set(name, flag(name, getattr(self, name)))
        parse_speculate("speculate", self.speculate)
        structure: object = self.structured_outputs
        if structure is not None and type(structure) is not StructuredOutputs:
            raise InvalidParameter("structured_outputs", f"must be StructuredOutputs, not {quoted(structure)}")

    @property
    def edits(self) -> frozenset[str]:
        """The names of the edits that are switched on."""
        bias = ("logit_bias",) if self.logit_bias else ()
        return frozenset((*self._switched_on(EDITS), *bias))

    @property
    def filters(self) -> frozenset[str]:
        """The names of the filters that are switched on."""
        return frozenset(self._switched_on(FILTERS))

    def _switched_on(self, declared: Mapping[str, Number]) -> Iterator[str]:
        return (name for name, each in declared.items() if getattr(self, name) != each.default)

    def _set(self, name: str, value: object) -> None:
        """Replaces what the caller gave by a plain value of Python, a copy that does not change later."""
        object.__setattr__(self, name, value)

    def _read_numbers(self) -> None:
        for name, declared in NUMBERS.items():
            self._set(name, declared.read(name, getattr(self, name)))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter("min_tokens", f"is {self.min_tokens}, but max_tokens is {self.max_tokens}")
        if self.seed is not None:
            self._set("seed", whole("seed", self.seed, most=None))
            if self.seed.bit_length() > MOST_SEED_BITS:
                raise InvalidParameter("seed", f"must be a whole number of at most {MOST_SEED_BITS} bits")

    def _read_bias(self) -> None:
        given = [] if self.logit_bias is None else pairs("logit_bias", self.logit_bias, "token ids to numbers")
        bias = {
            whole("logit_bias", token, 0): real("logit_bias", value, -LARGEST_BIAS, LARGEST_BIAS)
            for token, value in given
        }
        if len(bias) < len(given):
            raise InvalidParameter("logit_bias", "names a token twice")
        self._set("logit_bias", bias)

    def _read_ends(self) -> None:
        self._set("stop", _stop_strings(self.stop))
        tokens = () if self.stop_token_ids is None else items("stop_token_ids", self.stop_token_ids, "token ids")
        self._set("stop_token_ids", tuple(whole("stop_token_ids", token, 0) for token in tokens))

    def _read_logprobs(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._set(name, whole(name, getattr(self, name), ALL_TOKENS))
        mode = text(self.logprobs_mode)
        if mode not in LOGPROBS_MODES:
            known = " or ".join(LOGPROBS_MODES)
            raise InvalidParameter("logprobs_mode", f"must be {known}, not {quoted(self.logprobs_mode)}")
        self._set("logprobs_mode", mode)


NUMBERS: Mapping[str, Number] = dict(numbers_of(SamplingParams))
EDITS: Mapping[str, Number] = dict(numbers_of(SamplingParams, EDIT))
FILTERS: Mapping[str, Number] = dict(numbers_of(SamplingParams, FILTER))
"""The filters, in the order in which the sampler applies them."""


def _stop_strings(value: object) -> tuple[str, ...]:
    """None is none."""
    if value is None:
        return ()
    given = one_or_more("stop", value, "strings")
    if len(given) > MOST_STOP_STRINGS:
        raise InvalidParameter("stop", f"must hold at most {MOST_STOP_STRINGS} strings, not {len(given)}")
    found = []
    for one in given:
        string = text(one)
        if not string:
            raise InvalidParameter("stop", f"must hold non-empty strings, not {quoted(one)}")
        found.append(string)
    if sum(map(len, found)) > MOST_STOP_CHARACTERS:
        raise InvalidParameter("stop", f"must hold at most {MOST_STOP_CHARACTERS} characters in all")
    return tuple(found)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "precise": {"temperature": 0.3, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
    "creative": {"temperature": 1.1, "top_k": 0, "top_p": 0.95, "min_p": 0.05, "presence_penalty": 0.3},
}
"""Sets of parameters that go well together, by name."""


def preset(name: str, **changes: Any) -> SamplingParams:
    """The parameters of a preset, but for `changes`. Raises InvalidParameter for an unknown name."""
    known = text(name)
    if known is None or known not in PRESETS:
        raise InvalidParameter("preset", f"must be one of {', '.join(PRESETS)}, not {quoted(name)}")
    return SamplingParams(**{**PRESETS[known], **changes})
