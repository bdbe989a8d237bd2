"""What the steps of a tokenizer can make of a text, found out before the library is asked to take them.

A tokenizer.json may hold steps that make thousands of characters of each, regular expressions that need time without
end, rules that lead out of memory. The library neither looks nor stops, and where memory ends it ends the process.

Owns: how a text grows on its way, which texts are too large, which steps are refused. Refuses to know: vocabularies.
Source: the `normalizers`, `pre_tokenizers` and `processors` of https://github.com/huggingface/tokenizers.
Specs: TEXT-41 to TEXT-44. Next: `ferrum.text.character_rules`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ferrum.errors import RequestValidation, TokenizerError, quoted
from ferrum.text.character_rules import growth_of_rules
from ferrum.text.regex_cost import longest_text
from ferrum.text.token_bytes import SENTENCEPIECE_SPACE

LARGEST_TEXT = 4 << 20
"""Characters (outside ASCII: bytes) that a text may have on its way to tokens. Each costs the library some 100 to 350
bytes of memory, and a microsecond or two. A prompt for a million tokens has about four million."""
MOST_GROWTH = 4096  # characters out of one
MOST_STEPS = 64
MOST_AROUND = 4096  # tokens that go around every text

# Characters out of one, by the Unicode standard (https://www.unicode.org/faq/normalization.html) and the library
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
_LONG_TOKENS = 4096  # characters, of one token of each length above that
_BYTES = 4  # of a character
_SPACE_BYTES = len(SENTENCEPIECE_SPACE.encode())  # which is never more than one token


@dataclass(frozen=True)
class Growth:
    """How large a text can become. `normalized`: characters out of one. `around`: the same for what is put in front of
    each stretch between added tokens and of each piece, and for the copies that a post-processor makes. `longest`: the
    characters that a regular expression can be given."""

    normalized: float = 1.0
    around: float = 1.0
    longest: float = math.inf

    def check(self, text: str, normalize: Callable[[str], str]) -> None:
        """Raises `RequestValidation` for a text that is or becomes too large. `normalize` is asked where the worst case
        would be too much, a little at a time."""
        most = min(LARGEST_TEXT / self.around, self.longest)
        size = len(text) * self.normalized * (1 if text.isascii() else _BYTES)
        if size > most and self._size(text, most, normalize) > most:
            raise RequestValidation(
                f"the text is too long for the model's tokenizer: {len(text)} characters, which may become more than "
                f"{int(most * self.around)} on their way to tokens"
            )

    def _size(self, text: str, most: float, normalize: Callable[[str], str]) -> int:
        """The size of the normalized text, or of so much of it that it is too large. What a vocabulary does not have
        becomes a token for each byte."""
        at_once = max(1, int(LARGEST_TEXT / self.normalized))
        size = 0
        for start in range(0, len(text), at_once):
            part = text[start : start + at_once]
            part = normalize(part) if self.normalized > 1 else part
            size += len(part.encode()) - (_SPACE_BYTES - 1) * part.count(SENTENCEPIECE_SPACE)
            if size > most:
                break
        return size


def growth_of(
    normalizer: Any, pre_tokenizer: Any, post_processor: Any = None, shortest_added: int | None = None
) -> Growth:
    """What the parts of a tokenizer.json, as parsed, make of a text. `shortest_added`: characters of the shortest added
    token, each of which may start a stretch of its own. Raises `TokenizerError` for steps that no text should take."""
    first = list(_steps(normalizer, "normalizers"))
    then = list(_steps(pre_tokenizer, "pretokenizers"))
    last = list(_steps(post_processor, "processors"))
    if len(first) + len(then) + len(last) > MOST_STEPS:
        raise TokenizerError(f"the tokenizer has more than {MOST_STEPS} steps")
    normalized, in_front, longest = 1.0, 0, math.inf
    for step in first:
        if step["type"] == "Prepend":
            in_front += len(_text(step, "prepend"))
        else:
            normalized *= _out_of_one(step)
        longest = min(longest, _longest(step))
        if normalized > MOST_GROWTH or in_front > MOST_GROWTH:
            raise TokenizerError(f"the tokenizer's normalizer can make more than {MOST_GROWTH} characters of one")
    for step in then:
        if step["type"] not in _PRE_TOKENIZERS:
            raise _unknown(step)
        if step["type"] == "FixedLength" and step.get("length") == 0:
            raise TokenizerError("the tokenizer cuts texts into pieces of no length")
        longest = min(longest, _longest(step))
    prefixes = sum(step.get("add_prefix_space") is True or step["type"] == "Metaspace" for step in then)
    stretches = 0.0 if shortest_added is None else 1 / (1 + shortest_added)
    return Growth(
        normalized,
        (1 + in_front * stretches) * max(1, prefixes) * math.prod(map(_copies, last)),
        longest,
    )


def check_unigram(lengths: Iterable[int]) -> None:
    """Raises `TokenizerError` for a unigram vocabulary with long tokens of many lengths: at each place of a text the
    library looks for the tokens of every length, and copies those that it finds."""
    long = {length for length in lengths if length > _SHORT_TOKEN}
    if sum(long) > _LONG_TOKENS:
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
    """How many characters a normalizer makes of one, at most."""
    match step["type"]:
        case "Precompiled":
            try:
                rules = base64.b64decode(_text(step, "precompiled_charsmap"), validate=True)
            except (binascii.Error, ValueError):
                raise TokenizerError("the tokenizer's precompiled_charsmap is not base64") from None
            return growth_of_rules(rules, "the tokenizer's precompiled_charsmap")
        case "Replace":
            made, literal = len(_text(step, "content")), _pattern(step).get("String")
            if literal is None:
                return 1 + made
            if not isinstance(literal, str) or not literal:
                raise TokenizerError("the tokenizer replaces every empty text by another")
            return max(1.0, made / len(literal))
        case kind if kind in _NORMALIZERS:
            return _NORMALIZERS[kind]
    raise _unknown(step)


def _longest(step: Mapping[str, Any]) -> float:
    """How many characters a step can be given."""
    expression = _pattern(step).get("Regex") if step["type"] in ("Replace", "Split") else None
    return longest_text(expression) if isinstance(expression, str) else math.inf


def _pattern(step: Mapping[str, Any]) -> Mapping[str, Any]:
    pattern = step.get("pattern")
    if not isinstance(pattern, Mapping) or len(pattern) != 1:
        raise TokenizerError(f"the tokenizer's {step['type']} step has a pattern that is neither text nor expression")
    return pattern


def _copies(step: Mapping[str, Any]) -> int:
    """How many copies of a text's tokens a post-processor makes."""
    around = [step["special_tokens"][name]["ids"] for name in _names(step)]
    if sum(map(len, around)) > MOST_AROUND:
        raise TokenizerError(f"the tokenizer puts more than {MOST_AROUND} tokens around a text")
    copies = sum("Sequence" in piece for piece in step.get("single", ()))
    if copies > MOST_AROUND:
        raise TokenizerError(f"the tokenizer makes more than {MOST_AROUND} copies of a text's tokens")
    return max(1, copies)


def _names(step: Mapping[str, Any]) -> list[str]:
    """The names of the tokens that a post-processor puts around one text."""
    names = [piece["SpecialToken"]["id"] for piece in step.get("single", ()) if "SpecialToken" in piece]
    for name in names:
        if name not in step["special_tokens"]:
            raise TokenizerError(f"the tokenizer puts {quoted(name)} around a text and does not say which token it is")
    return names


def ids_around(post_processor: Any) -> Iterator[int]:
    """The tokens that a post-processor puts around texts."""
    for step in _steps(post_processor, "processors"):
        for name in _names(step):
            yield from step["special_tokens"][name]["ids"]
        for role in ("cls", "sep"):
            if role in step:
                yield step[role][1]


def _text(step: Mapping[str, Any], key: str) -> str:
    value = step.get(key)
    if not isinstance(value, str):
        raise TokenizerError(f"the tokenizer's {step['type']} step must have a text as its {key}, not {quoted(value)}")
    return value


def _unknown(step: Mapping[str, Any]) -> TokenizerError:
    return TokenizerError(f"the tokenizer has a step of an unknown type: {quoted(step['type'])}")
