"""Bounds on the steps of a tokenizer, checked before the library runs them: size of a text and running time.

A tokenizer.json may hold steps that turn one character into thousands, regular expressions that run for years, and
rules that point outside of their memory. The library does not check them, cannot be interrupted, and ends the process
when memory runs out.

Owns: how much a text can grow, which texts are too large, which steps are refused. Refuses to know: vocabularies.
Source: the `normalizers`, `pre_tokenizers` and `processors` of https://github.com/huggingface/tokenizers.
Specs: TEXT-41 to TEXT-44. Next: `ferrum.text.character_rules`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tokenizers import normalizers

from ferrum.errors import RequestValidation, TokenizerError, quoted
from ferrum.text.character_rules import growth_of_rules
from ferrum.text.native import ask
from ferrum.text.regex_cost import Cost, cost_of
from ferrum.text.token_bytes import SENTENCEPIECE_SPACE

LARGEST_TEXT = 4 << 20
"""The largest size of a text before and after each step: characters, or UTF-8 bytes of characters outside ASCII. The
library needs 100 to 350 bytes of memory and one or two microseconds for each. A prompt of a million tokens has about
four million characters."""
MOST_GROWTH = 4096  # characters that all steps together may make of one
MOST_STEPS = 64
MOST_AROUND = 4096  # tokens that a post-processor may put around a text

# The most characters that a step makes of one (https://www.unicode.org/faq/normalization.html, and the library's code)
_NORMALIZERS = {
    "BertNormalizer": 8,
    "ByteLevel": 4,
    "Lowercase": 2,
    "NFC": 3,
    "NFD": 4,
    "NFKC": 18,
    "NFKD": 18,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
}
_PRE_TOKENIZERS = {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Delimiter", "Digits", "FixedLength"}
_PRE_TOKENIZERS |= {"Metaspace", "Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"}
_SHORT_TOKEN = 32  # characters; nearly all tokens of unigram models have up to sixteen
_LONG_TOKENS = 4096  # the largest sum of the different lengths above _SHORT_TOKEN
_ANY = r"[\s\S]"
_BYTES = 4  # the most UTF-8 bytes of a character
_SPACE_BYTES = len(SENTENCEPIECE_SPACE.encode())


@dataclass(frozen=True)
class Normalization:
    """One step of a normalizer, with its bounds."""

    step: Mapping[str, Any]  # as in a tokenizer.json
    growth: float  # the most characters that it makes of one
    cost: Cost | None = None  # of its regular expression
    function: Callable[[str], str] | None = None  # does the step where the library does not

    def apply(self, text: str, limit: float) -> str:
        """The text after this step, made in parts, so that a text that becomes larger than `limit` is refused before it
        takes memory. Raises `RequestValidation`."""
        if self.cost is not None:
            _require_short_runs(self.cost, text)
        normalize = self.function
        if normalize is None:
            normalizer = normalizers.Sequence([])
            normalizer.__setstate__(json.dumps(self.step).encode())
            normalize = normalizer.normalize_str
        at_once = max(1, int(LARGEST_TEXT / self.growth))
        size, parts = 0, []
        for start in range(0, len(text), at_once):
            parts.append(ask(_cannot_normalize, normalize, text[start : start + at_once]))
            size += _size(parts[-1])
            _require_size(size, limit)
        return "".join(parts)


@dataclass(frozen=True)
class Growth:
    """The bounds of all steps of a tokenizer."""

    normalizations: tuple[Normalization, ...] = ()
    around: float = 1.0  # growth by the characters put in front of each stretch between added tokens and of each piece
    costs: tuple[Cost, ...] = ()  # of the pre-tokenizer's expressions that take more than linear time

    def check(self, text: str) -> None:
        """Raises `RequestValidation` for a text that is or becomes too large, or would take too long. A text whose
        worst case is within the bounds passes at once; any other is normalized in parts to learn its real size."""
        limit = LARGEST_TEXT / self.around
        worst = len(text) * self.normalized * (1 if text.isascii() else _BYTES)
        if worst <= min(limit, self._longest):
            return
        _require_size(_size(text), limit)
        for normalization in self.normalizations:
            text = normalization.apply(text, limit)
        for cost in self.costs:
            _require_short_runs(cost, text)

    @cached_property
    def normalized(self) -> float:
        """The most characters that the normalizer makes of one."""
        return math.prod(normalization.growth for normalization in self.normalizations)

    @cached_property
    def _longest(self) -> float:
        """Characters up to which every expression is quick on every text."""
        costs = (*self.costs, *(normalization.cost for normalization in self.normalizations))
        return min((cost.longest for cost in costs if cost is not None), default=math.inf)


def _size(text: str) -> int:
    """ASCII characters, and the UTF-8 bytes of others: a character outside the vocabulary becomes a token per byte. A
    "▁" counts once, since it is never more than one token."""
    return len(text) if text.isascii() else len(text.encode()) - (_SPACE_BYTES - 1) * text.count(SENTENCEPIECE_SPACE)


def _require_size(size: int, limit: float) -> None:
    if size > limit:
        raise RequestValidation(
            f"the text is too long for the model's tokenizer, which takes {LARGEST_TEXT} characters at most, including "
            "those that it adds on the way"
        )


def _require_short_runs(cost: Cost, text: str) -> None:
    if not cost.allows(text):
        raise RequestValidation(
            "the text has too long a run of characters for the tokenizer's regular expression "
            f"{quoted(cost.expression)}, which would take too long"
        )


def _cannot_normalize(reason: str) -> TokenizerError:
    return TokenizerError(f"the tokenizer cannot normalize this text: {reason}")


def growth_of(normalizer: Any, pre_tokenizer: Any, shortest_added: int | None = None) -> Growth:
    """The bounds of the normalizer and pre-tokenizer of a parsed tokenizer.json. `shortest_added`: characters of the
    shortest added token; a new stretch of text may begin behind each added token. Raises `TokenizerError` for steps
    that are refused."""
    normalizer_steps = list(_steps(normalizer, "normalizers"))
    pre_tokenizer_steps = list(_steps(pre_tokenizer, "pretokenizers"))
    if len(normalizer_steps) + len(pre_tokenizer_steps) > MOST_STEPS:
        raise TokenizerError(f"the tokenizer has more than {MOST_STEPS} steps")
    normalizations, normalized, in_front = [], 1.0, 0.0
    for step in normalizer_steps:
        if step["type"] == "Prepend":
            in_front += len(_text(step, "prepend"))
        else:
            growth = _out_of_one(step)
            normalizations.append(Normalization(step, growth, _cost(step)))
            normalized, in_front = normalized * growth, in_front * growth
        if normalized > MOST_GROWTH or in_front > MOST_GROWTH:
            raise TokenizerError(f"the tokenizer's normalizer can make more than {MOST_GROWTH} characters of one")
    in_front *= 0.0 if shortest_added is None else 1 / (1 + shortest_added)
    return Growth(
        tuple(normalizations), (1 + in_front) * _prefixes(pre_tokenizer_steps), tuple(_costs(pre_tokenizer_steps))
    )


def growth_of_function(
    normalize: Callable[[str], str], growth: int, pre_tokenizer: Any, shortest_added: int | None
) -> Growth:
    """The bounds where a function of ours normalizes. It makes at most `growth` characters of one, and puts one in
    front of a stretch."""
    prepended = growth_of({"type": "Prepend", "prepend": SENTENCEPIECE_SPACE}, pre_tokenizer, shortest_added)
    return replace(prepended, normalizations=(Normalization({}, float(growth), function=normalize),))


def _prefixes(pre_tokenizer: list[Mapping[str, Any]]) -> int:
    """Number of steps that may put a character in front of a piece; at least 1, since a piece has a character."""
    for step in pre_tokenizer:
        if step["type"] not in _PRE_TOKENIZERS:
            raise _unknown(step)
        if step["type"] == "FixedLength" and step.get("length") == 0:
            raise TokenizerError("the tokenizer cuts texts into pieces of no length")
    prefixing = [step for step in pre_tokenizer if step.get("add_prefix_space") is True or step["type"] == "Metaspace"]
    return max(1, len(prefixing))


def _costs(pre_tokenizer: list[Mapping[str, Any]]) -> Iterator[Cost]:
    """The costs of the expressions that take more than linear time. Behind a step that writes characters in another
    way, an expression may repeat any character of the text."""
    is_rewritten = False
    for step in pre_tokenizer:
        cost = _cost(step)
        if cost is not None and cost.degree:
            yield replace(cost, repeated=(_ANY,)) if is_rewritten else cost
        is_rewritten = is_rewritten or step["type"] in ("ByteLevel", "Metaspace")


def check_unigram(lengths: Iterable[int]) -> None:
    """Raises `TokenizerError` for a unigram vocabulary with long tokens of many lengths: at each place of a text the
    library looks for tokens of every length, and copies each token that matches."""
    long_lengths = {length for length in lengths if length > _SHORT_TOKEN}
    if sum(long_lengths) > _LONG_TOKENS:
        raise TokenizerError(f"the tokenizer has too many tokens of more than {_SHORT_TOKEN} characters")


def _steps(part: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """The steps in order, with nested sequences opened."""
    if part is None:
        return
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise TokenizerError(f"the tokenizer has a step without a type: {quoted(part)}")
    if part["type"] != "Sequence":
        yield part
        return
    if not isinstance(part.get(inner), list):
        raise TokenizerError(f"the tokenizer has a sequence of steps without a list of {inner}")
    for step in part[inner]:
        yield from _steps(step, inner)


def _out_of_one(step: Mapping[str, Any]) -> float:
    """The most characters that a normalizer makes of one."""
    match step["type"]:
        case "Precompiled":
            try:
                rules = base64.b64decode(_text(step, "precompiled_charsmap"), validate=True)
            except (binascii.Error, ValueError):
                raise TokenizerError("the tokenizer's precompiled_charsmap is not base64") from None
            return growth_of_rules(rules, "the tokenizer's precompiled_charsmap")
        case "Replace":
            size, literal = len(_text(step, "content")), _pattern(step).get("String")
            if literal is None:
                return 1 + size
            if not isinstance(literal, str) or not literal:
                raise TokenizerError("the tokenizer replaces every empty text by another")
            return max(1.0, size / len(literal))
        case kind if kind in _NORMALIZERS:
            return _NORMALIZERS[kind]
    raise _unknown(step)


def _cost(step: Mapping[str, Any]) -> Cost | None:
    """The cost of a step's regular expression; None for a step without one."""
    expression = _pattern(step).get("Regex") if step["type"] in ("Replace", "Split") else None
    return cost_of(expression) if isinstance(expression, str) else None


def _pattern(step: Mapping[str, Any]) -> Mapping[str, Any]:
    pattern = step.get("pattern")
    if not isinstance(pattern, Mapping) or len(pattern) != 1:
        raise TokenizerError(f"the tokenizer's {step['type']} step has a pattern that is neither text nor expression")
    return pattern


def ids_around(post_processor: Any) -> list[int]:
    """The ids of the tokens that a post-processor puts around a text. Raises `TokenizerError` for one that leaves the
    text out or repeats it, and for several in a row, with which the library does so."""
    around = [step for step in _steps(post_processor, "processors") if step["type"] != "ByteLevel"]
    if len(around) > 1:
        raise TokenizerError("the tokenizer has more than one step that puts tokens around a text")
    for step in around:
        if step["type"] != "TemplateProcessing":
            return [step[role][1] for role in ("cls", "sep")]
        if [piece["Sequence"]["id"] for piece in step["single"] if "Sequence" in piece] != ["A"]:
            raise TokenizerError("the tokenizer's TemplateProcessing does not hold the text exactly once")
        ids = []
        for name in (piece["SpecialToken"]["id"] for piece in step["single"] if "SpecialToken" in piece):
            if name not in step["special_tokens"]:
                raise TokenizerError(f"the tokenizer puts {quoted(name)} around texts without saying which token it is")
            ids += step["special_tokens"][name]["ids"]
            if len(ids) > MOST_AROUND:
                raise TokenizerError(f"the tokenizer puts more than {MOST_AROUND} tokens around a text")
        return ids
    return []


def _text(step: Mapping[str, Any], key: str) -> str:
    value = step.get(key)
    if not isinstance(value, str):
        raise TokenizerError(f"the tokenizer's {step['type']} step must have a text as its {key}, not {quoted(value)}")
    return value


def _unknown(step: Mapping[str, Any]) -> TokenizerError:
    return TokenizerError(f"the tokenizer has a step of an unknown type: {quoted(step['type'])}")
