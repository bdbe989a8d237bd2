"""Unusual vocabularies of GGUF files: the cases of the goldens and of the tests.

`tests/goldens/make_gguf_word_goldens.py`, which calls llama.cpp, imports this module too, so it imports no ferrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.load.gguf_writer import Value

Pairs = list[tuple[str, Any]]
PREFIX = "tokenizer.ggml."
TEXTS = ["hello hello", " hell ohe xy", "<|im_end|>hello </s>he", "<s>x y</s>\n"]
BYTE_LEVEL = [chr(byte) if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD) else None for byte in range(256)]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def alphabet() -> list[str]:
    """The printable character of each byte in GPT-2's spelling."""
    substitutes = iter(range(0x100, 0x200))
    return [char if char is not None else chr(next(substitutes)) for char in BYTE_LEVEL]


def gpt2(more: dict[str, int] | None = None, **changes: Any) -> Pairs:
    """A byte-level vocabulary with `more` tokens of these types at its end; a change of None leaves a key out."""
    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *alphabet(), "he", "ll", "hell", "hello", "Ġhello"]
    types = [CONTROL] * 5 + [NORMAL] * (len(tokens) - 5)
    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"]
    return _pairs("gpt2", tokens, types, more, {"pre": "smollm", "merges": merges, "add_bos_token": False} | changes)


def llama(more: dict[str, int] | None = None, **changes: Any) -> Pairs:
    """A SentencePiece vocabulary."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["▁", *"helowxy", "he", "ll", "hell", "hello", "▁hello", "▁he"]
    tokens = ["<unk>", "<s>", "</s>", *pieces, *words, "<|im_end|>"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words), CONTROL]
    scores = [0.0] * 259 + [-100.0 + place for place in range(len(words))] + [0.0]
    scores += [0.0] * len(more or {})
    return _pairs("llama", tokens, types, more, {"scores": scores} | changes)


def _pairs(model: str, tokens: list[str], types: list[int], more: dict[str, int] | None, keys: dict[str, Any]) -> Pairs:
    more = more or {}
    values: dict[str, Any] = {"model": model, "tokens": [*tokens, *more], "token_type": [*types, *more.values()]}
    values |= {"bos_token_id": 1, "eos_token_id": 2, **keys}
    named = {PREFIX + key: value for key, value in values.items() if value is not None}
    return list(({"general.architecture": "llama"} | named).items())


ENDS = [
    "<|eot_id|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>",
    "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>",
    "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[", "<|fim_pad|>", "<fim_pad>", "<PAD>", "[PAD]", "<|repo_name|>",
    "<|fim_repo|>", "<reponame>", "<REPO>", "<|file_sep|>", "<|fim_prefix|>", "<fim_suffix>", "▁<MID>", "<|channel|>",
    "<|message|>", "<|plamo:eos|>", "<|user|>", "<|im_end", "</S>",
]  # fmt: skip
TOGETHER = [
    ["<|end|>", "<|return|>", "<|call|>"], ["<|end|>", "<|return|>"], ["<|end|>", "<|call|>", "<|flush|>"],
    ["<|end|>", "<|calls|>", "<|flush|>"], ["<|end|>", "<|calls|>", "<|return|>"], ["<|tool_response>", "<eos>"],
    ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"], ["<|file_sep|>", "<|fim_pad|>", "<|repo_name|>", "<|endoftext|>"],
]  # fmt: skip
VALUES: dict[str, Any] = {
    "yes": True, "no": False, "number": 4, "signed": Value("int32", 4), "long": Value("uint64", 4), "fraction": 4.0,
    "none": 0xFFFFFFFF, "minus": Value("int32", -1), "beyond": 100000, "text": "4", "list": [4], "texts": ["a", "b"],
}  # fmt: skip
IDS = [
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "cls",
    "fim_pad",
    "fim_rep",
    "fim_sep",
    "prefix",
]
KEYS = [f"{name}_token_id" for name in IDS]
KEYS += [
    "add_bos_token",
    "add_eos_token",
    "add_sep_token",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "pre",
    "model",
]
KEYS += ["merges", "scores", "token_type", "tokens", "token_type_count", "suppress_tokens", "precompiled_charsmap"]


def all_cases() -> dict[str, Pairs]:
    """All cases, by a name that says what is unusual."""
    return {name: pairs for make in (_keys, _ends, _merges, _empty) for name, pairs in make()}


def _keys() -> Iterator[tuple[str, Pairs]]:
    for kind in (gpt2, llama):
        for key in KEYS:
            yield f"key {kind.__name__} {key}: missing", kind(**{key: None})
            for name, value in VALUES.items():
                yield f"key {kind.__name__} {key}: {name}", kind(**{key: value})
            usual = dict(kind()).get(PREFIX + key, 4)
            yield f"key {kind.__name__} {key}: doubled", [*kind(**{key: usual}), (PREFIX + key, usual)]


def _ends() -> Iterator[tuple[str, Pairs]]:
    for kind in (gpt2, llama):
        for text in ENDS:
            for type_name, number in (("control", CONTROL), ("normal", NORMAL), ("user", USER)):
                yield f"end {kind.__name__} {type_name} {text}", kind({text: number})
        for texts in TOGETHER:
            yield f"end {kind.__name__} {' '.join(texts)}", kind(dict.fromkeys(texts, CONTROL))
        yield f"end {kind.__name__} named otherwise", kind({"<x>": CONTROL}, eot_token_id=5, eom_token_id=6)
        yield f"end {kind.__name__} of code named", kind({"[PAD]": CONTROL}, fim_pad_token_id=7, fim_sep_token_id=8)
        yield f"end {kind.__name__} without any", kind(eos_token_id=None, bos_token_id=None)


def _merges() -> Iterator[tuple[str, Pairs]]:
    usual = dict(gpt2())[PREFIX + "merges"]
    odd = {
        "no result": ["x y"], "no parts": ["zz qq"], "one part": ["he qq"], "doubled": ["h e"], "no space": ["hello"],
        "two spaces": ["h e l"], "a space first": [" h e"], "a space last": ["h "], "empty": [""],
        "only a space": [" "],
    }  # fmt: skip
    for name, merges in odd.items():
        yield f"merges {name} last", gpt2(merges=[*usual, *merges])
        yield f"merges {name} first", gpt2(merges=[*merges, *usual])
    yield "merges doubled otherwise", gpt2(merges=["l l", "h e", "he ll", "l l", "hell o", "h e", "Ġ hello"])


def _empty() -> Iterator[tuple[str, Pairs]]:
    for kind in (gpt2, llama):
        for count in (1, 2, 3):
            pairs = dict(kind())
            pairs[PREFIX + "tokens"] = [*pairs[PREFIX + "tokens"], *[""] * count]
            pairs[PREFIX + "token_type"] = [*pairs[PREFIX + "token_type"], *[NORMAL] * count]
            if PREFIX + "scores" in pairs:
                pairs[PREFIX + "scores"] = [*pairs[PREFIX + "scores"], *[0.0] * count]
            yield f"empty {kind.__name__} {count}", list(pairs.items())
        for number in (CONTROL, USER, UNUSED, UNKNOWN):
            pairs = dict(kind({"": number}))
            yield f"empty {kind.__name__} of type {number}", list(pairs.items())
        for name in ("tokens", "token_type", "scores"):
            pairs = dict(kind())
            if PREFIX + name in pairs:
                for change in (pairs[PREFIX + name][:-1], [*pairs[PREFIX + name], pairs[PREFIX + name][-1]]):
                    yield (
                        f"length {kind.__name__} {name} {len(change)}",
                        list((pairs | {PREFIX + name: change}).items()),
                    )
