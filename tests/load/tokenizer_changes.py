"""Unusual files beside a tokenizer.json: the cases of the goldens and of the tests.

`tests/goldens/make_tokenizer_config_goldens.py`, which calls transformers, imports this module too, so it imports no
ferrum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Files = dict[str, Any]

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64}
WORDS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>"]
TEXTS = ["hello<|im_end|> hello", "<s>hell</s>", "<a> he <b>he<c>", "<pad>h <img>", "HELLO hello ."]
TOKEN = {"content": "<a>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False, "special": True}
TYPED = {**TOKEN, "__type": "AddedToken"}


def added(text: str, token_id: int, **flags: bool) -> dict[str, Any]:
    """A token as tokenizer.json lists it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": text, **plain, **flags}


def tokenizer_json(kind: str, **changes: Any) -> dict[str, Any]:
    """A vocabulary of some thirty tokens: "bytes" writes a space as "Ġ", "pieces" as "▁"."""
    space = "Ġ" if kind == "bytes" else "▁"
    tokens = [*WORDS, space, *"helowrdHELO.<>ab|_imgst", "he", "ll", "hell", "hello", space + "hello"]
    vocab = {text: place for place, text in enumerate(dict.fromkeys(tokens))}
    merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], [space, "hello"]]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocab, "merges": merges}  # fmt: skip
    parts: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    parts["added_tokens"] = [added(text, vocab[text]) for text in WORDS[:3]]
    if kind == "bytes":
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        parts |= {"normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level}
    else:
        steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
        undo = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]  # fmt: skip
        parts |= {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}
        parts |= {"post_processor": None, "decoder": {"type": "Sequence", "decoders": undo}}
    return {**parts, "model": model, **changes}


VALUES: dict[str, Any] = {
    "null": None, "true": True, "false": False, "zero": 0, "number": 3, "fraction": 1.5, "text": "<a>", "known": "</s>",
    "empty": "", "list": ["<a>", "<b>"], "nothing": [], "object": {}, "token": TOKEN, "typed": TYPED,
    "tokens": [TOKEN, "<b>"], "typed-tokens": [TYPED, "<b>"], "named": {"img_token": "<img>"}, "numbered": {"9": TOKEN},
}  # fmt: skip
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
KEYS = [
    *NAMES,
    "img_token", "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "add_bos_token",
    "add_eos_token", "add_prefix_space", "legacy", "clean_up_tokenization_spaces", "split_special_tokens",
    "do_lower_case", "model_max_length", "max_len", "padding_side", "truncation_side", "tokenizer_class",
    "name_or_path", "use_fast", "processor_class", "sp_model_kwargs", "model_specific_special_tokens",
    "model_input_names",
]  # fmt: skip
"""Keys of tokenizer_config.json; each gets each of the values."""


def folder(kind: str = "bytes", settings: Any = None, tokenizer: Files | None = None, **others: Any) -> Files:
    """The files of a directory: tokenizer.json with changes, tokenizer_config.json unless it is None, and others by
    their names."""
    files: Files = {"tokenizer.json": tokenizer_json(kind, **(tokenizer or {})), "config.json": CONFIG}
    files |= {} if settings is None else {"tokenizer_config.json": settings}
    return files | {f"{name}.json": value for name, value in others.items()}


def all_cases() -> dict[str, Files]:
    """All cases, by a name that says what is unusual."""
    return {name: files for make in (_keys, _maps, _classes, _listed, _added_json) for name, files in make()}


def _keys() -> Iterator[tuple[str, Files]]:
    usual = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    for key in KEYS:
        for name, value in VALUES.items():
            yield f"{key}: {name}", folder("bytes", {**usual, key: value})
        twice = json.dumps(usual)[:-1] + f', "{key}": "<b>", "{key}": "<a>"}}'
        yield f"{key}: doubled", folder("bytes", twice)
        if key in usual:
            yield f"{key}: missing", folder("bytes", {name: value for name, value in usual.items() if name != key})


def _maps() -> Iterator[tuple[str, Files]]:
    """special_tokens_map.json beside tokenizer_config.json, which may list its tokens or not."""
    lists = {"added_tokens_decoder": {"1": added_token("<s>")}}
    for key in (*NAMES, "img_token", "additional_special_tokens", "extra_special_tokens"):
        for name, value in VALUES.items():
            named: Files = {key: value}
            yield f"map {key}: {name}", folder("bytes", {"tokenizer_class": "X"}, special_tokens_map=named)
        for name in ("text", "null", "tokens", "named"):
            both = folder("bytes", {key: "<b>"}, special_tokens_map={key: VALUES[name]})
            yield f"map over {key}: {name}", both
            yield (
                f"map under {key}: {name}",
                folder("bytes", {**lists, key: "<b>"}, special_tokens_map={key: VALUES[name]}),
            )
    yield "map alone", folder("bytes", None, special_tokens_map={"eos_token": "<|im_end|>", "pad_token": TOKEN})
    yield "nothing beside", folder("bytes", None)
    extras = {"extra_special_tokens": ["<a>"]}
    yield "extra in both", folder("bytes", extras, special_tokens_map={"extra_special_tokens": ["<b>", TOKEN]})
    old = {"additional_special_tokens": ["<b>"]}
    yield "additional in both", folder("bytes", {"additional_special_tokens": ["<a>"]}, special_tokens_map=old)
    yield "both extras", folder("bytes", {**extras, **old})
    yield "padding", folder("bytes", {}, {"padding": padding("<pad>")})
    yield "padding and a name", folder("bytes", {"pad_token": "<unk>"}, {"padding": padding("<pad>")})
    yield "padding and null", folder("bytes", {"pad_token": None}, {"padding": padding("<pad>")})


def padding(text: str) -> Files:
    return {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 5, "pad_type_id": 0,
            "pad_token": text}  # fmt: skip


def _classes() -> Iterator[tuple[str, Files]]:
    """What a class adds where the files name nothing. (Its own rules for text are another matter.)"""
    classes = ["LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer",
               "GemmaTokenizerFast", "CohereTokenizerFast", "GPTNeoXTokenizerFast", "PreTrainedTokenizerFast",
               "PreTrainedTokenizer", "TokenizersBackend", "Unheard", "BertTokenizer"]  # fmt: skip
    for name in classes:
        settings = {"tokenizer_class": name}
        for kind in ("bytes", "pieces"):
            yield f"class {name} {kind}", folder(kind, settings)
            yield f"class {name} {kind} of mistral", {**folder(kind, settings), "config.json": MISTRAL}
        yield f"class {name} in config", folder("pieces", {}, config={**CONFIG, "tokenizer_class": name})
        yield f"class {name} with names", folder("pieces", {**settings, "bos_token": "<a>", "eos_token": None})
        yield f"class {name} with a map", folder("pieces", settings, special_tokens_map={"unk_token": "<b>"})
        yield f"class {name} padding", folder("pieces", settings, {"padding": padding("<pad>")})


MISTRAL = {**CONFIG, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}


def added_token(text: str, **flags: Any) -> Files:
    """A token as tokenizer_config.json lists it."""
    return {**{key: value for key, value in added(text, 0).items() if key != "id"}, **flags}


def _listed() -> Iterator[tuple[str, Files]]:
    """Tokens that tokenizer_config.json lists, against those that tokenizer.json has. Its vocabulary has 33 tokens."""
    size = len(tokenizer_json("bytes")["model"]["vocab"])
    lists: dict[str, dict[str, Any]] = {
        "on top": {str(size): added_token("<a>"), str(size + 1): added_token("<b>")},
        "not in order": {str(size + 1): added_token("<b>"), str(size): added_token("<a>")},
        "a gap": {str(size + 7): added_token("<a>"), str(size + 9): added_token("<b>")},
        "an id of another": {"2": added_token("<a>"), "9": added_token("<b>")},
        "of the vocabulary": {"3": added_token("<|im_start|>"), "4": added_token("<|im_end|>", special=False)},
        "words": {"20": added_token("he", special=False), "21": added_token("hello", normalized=True, special=False)},
        "twice": {str(size): added_token("<a>"), str(size + 1): added_token("<a>", rstrip=True)},
        "other flags": {"2": added_token("</s>", special=False, lstrip=True), "1": added_token("<s>", rstrip=True)},
        "plain": {str(size): added_token("<a>", special=False), str(size + 1): added_token("<b>", normalized=True)},
        "single words": {
            str(size): added_token("he", single_word=True),
            str(size + 1): added_token("<a>", lstrip=True),
        },
        "empty": {str(size): added_token("")},
        "little said": {str(size): {"content": "<a>"}, str(size + 1): {"content": "<b>", "special": True}},
        "negative": {"-1": added_token("<a>")},
        "no number": {"x": added_token("<a>")},
        "texts": {str(size): "<a>"},
        "no content": {str(size): {"special": True}},
        "odd flags": {str(size): added_token("<a>", special=None)},
        "numbers as flags": {str(size): added_token("<a>", lstrip=1)},
    }
    for name, listed in lists.items():
        for kind in ("bytes", "pieces"):
            yield f"listed {name} {kind}", folder(kind, {"added_tokens_decoder": listed})
        named = {
            "added_tokens_decoder": listed,
            "eos_token": "<b>",
            "pad_token": "<c>",
            "extra_special_tokens": ["<a>"],
        }
        yield f"listed {name} and named", folder("bytes", named)

    plain = {"4": added_token("<|im_end|>", special=False), "5": added_token("<pad>", special=False)}
    yield (
        "listed as no special tokens, and named",
        folder("bytes", {"added_tokens_decoder": plain, "eos_token": "<|im_end|>"}),
    )


def _added_json() -> Iterator[tuple[str, Files]]:
    size = len(tokenizer_json("bytes")["model"]["vocab"])
    lists: dict[str, Any] = {
        "on top": {"<a>": size, "<b>": size + 1},
        "not in order": {"<b>": size + 1, "<a>": size},
        "a gap": {"<a>": size + 5},
        "an id of another": {"<a>": 2, "<b>": 9},
        "of the vocabulary": {"<|im_end|>": 4, "hello": 21},
        "a text for an id": {"<a>": str(size)},
        "a list": ["<a>"],
        "nothing": {},
    }
    for name, listed in lists.items():
        yield f"added {name}", folder("bytes", {}, added_tokens=listed)
        yield (
            f"added {name}, named",
            folder("bytes", {"eos_token": "<b>", "extra_special_tokens": ["<a>"]}, added_tokens=listed),
        )
        yield f"added {name}, map", folder("bytes", None, added_tokens=listed, special_tokens_map={"eos_token": "<b>"})
        yield f"added {name}, listed", folder("bytes", {"added_tokens_decoder": {}}, added_tokens=listed)


def write(place: Path, files: Files) -> Path:
    """A directory with these files; a text is written as it is."""
    for name, content in files.items():
        (place / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return place
