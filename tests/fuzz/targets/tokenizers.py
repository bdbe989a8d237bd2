"""Tokenizers: tokenizer.json, and the tokenizer in the metadata of a GGUF file; loaded, and used on hostile texts.

Owns: shapes of tokenizers that are known to end a process, and prompts that make a regular expression search for ever.
Refuses to know: models.
Next: `tests.fuzz.targets.templates`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from ferrum.errors import FerrumError
from ferrum.load.gguf import GGUFFile
from ferrum.load.token_ids import NO_IDS
from ferrum.load.vocabulary import GGUFVocabulary
from ferrum.text.stream import IncrementalDetokenizer
from ferrum.text.tokenizer import Tokenizer
from tests.fuzz.mutate import json_bytes, mutate_text
from tests.fuzz.target import Target, Wrong
from tests.fuzz.targets.configurations import mutate_metadata
from tests.load.gguf_writer import Value, gguf_bytes
from tests.text.small_tokenizers import (
    byte_level_json,
    gguf_metadata,
    metaspace_backend,
    sentencepiece_backend,
    sentencepiece_metadata,
)

TEXTS = [
    "Hello, world! 12345", "", " ", "hello the lot", "a" * 2000 + "c", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", "\0\0",
    "é😀日本語", " \n\t  x", "<s>hello</s><|im_start|>", "▁▁", "\u0130\u1e9e\u0345\ufdfa" * 50, "\ud800",
    "[MASK] ##ab unknown", "x " * 3000, "\u0301" * 300,
]  # fmt: skip
COMPARED = 100_000
"""Tokens of a text that are decoded in both ways."""
SLOW = [
    "(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*)*x", "(?=a)*", "(a{1,9}){1,9}$", "[", "(?<=a+)b", "", "$", "^", "\\X+",
    "(a*)*",
]  # fmt: skip
"""Patterns that search for ever, match nothing, or are none."""
KNOWN: list[Any] = [
    *[{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} for pattern in SLOW],
    *[{"type": "Replace", "pattern": {"Regex": pattern}, "content": "aaaa"} for pattern in SLOW],
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa" * 100},
    {"type": "Replace", "pattern": {"String": ""}, "content": "b"},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA8AAAAAA="},
    {"type": "Precompiled", "precompiled_charsmap": ""}, {"type": "Prepend", "prepend": "a" * 100}, {"type": "NFKD"},
    {"type": "NFC"},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
     "lowercase": True},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "StripAccents"}, {"type": "Lowercase"},
    {"type": "Nmt"}, {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "aaaa"}] * 30},
    {"type": "Sequence", "normalizers": []},
    {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}] * 20},
    {"type": "Sequence", "pretokenizers": []}, {"type": "FixedLength", "length": 0},
    {"type": "FixedLength", "length": 3}, {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"}, {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"},
    {"type": "CharDelimiterSplit", "delimiter": "a"}, {"type": "BertPreTokenizer"}, {"type": "Whitespace"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "BertProcessing", "sep": ["</s>", 2**32 - 1], "cls": ["<s>", 5]},
    {"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 0]},
    {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
     "add_prefix_space": True},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [],
     "special_tokens": {}},
    {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [],
     "special_tokens": {}},
    {"type": "Strip", "content": "a", "start": 2**32, "stop": 2**63},
    {"type": "Strip", "content": "a", "start": 1, "stop": 1},
    {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "BPEDecoder", "suffix": ""}, {"type": "Fuse"},
    {"type": "ByteFallback"}, {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5},
    {"direction": "Left", "max_length": 0, "strategy": "OnlySecond", "stride": 0},
    {"strategy": {"Fixed": 2**62}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
     "pad_type_id": 0, "pad_token": ""},
    {"id": 2**32 - 1, "content": "x", "single_word": False, "lstrip": True, "rstrip": True, "normalized": True,
     "special": False},
    {"id": 5, "content": "", "single_word": True, "lstrip": False, "rstrip": False, "normalized": False,
     "special": True},
    "<unk>", "aaaaaa", "##", "▁", "[UNK]", ["a", "a"], "a a", ["h", "zz"], [["a", 1e308], ["b", float("nan")]],
    2**32 - 1, 0.5, 1.5,
]  # fmt: skip
"""Parts of a tokenizer.json, most of them from public reports of panics."""
CHARSMAPS = [
    [3, 0, 0, 0, 1, 2, 3], [4, 0, 0, 0, 0, 1, 2, 3, 0, 0], [0, 0, 0, 240, 0, 0, 0, 0], [0, 0, 0, 0], [], [255] * 12,
    [8, 0, 0, 0] + [0] * 12,
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A tokenizer.json, or a GGUF file, and texts."""

    file: bytes
    texts: list[str]


class Tokenizers(Target):
    """Every kind of tokenizer the libraries have, changed, with ordinary and hostile texts."""

    @cached_property
    def jsons(self) -> list[str]:
        unigram = tokenizers.Tokenizer(
            models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("▁a", -1.5)], 0, True)
        )
        unigram.normalizer, unigram.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        words = tokenizers.Tokenizer(
            models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3, "##a": 4, "a": 5})
        )
        words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        words.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        levels = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "hello": 1}, "<unk>"))
        levels.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
        for other in (unigram, words, levels):
            other.decoder = sentencepiece_backend().decoder
        made = [
            unigram,
            words,
            levels,
            sentencepiece_backend(),
            metaspace_backend("always"),
            metaspace_backend("first"),
        ]
        return [byte_level_json(), *(backend.to_str() for backend in made)]

    @cached_property
    def metadata(self) -> list[dict[str, Any]]:
        t5 = sentencepiece_metadata(
            model="t5", precompiled_charsmap=Value("array", [0, 0, 0, 0], "uint8"), add_eos_token=True
        )
        return [gguf_metadata(), sentencepiece_metadata(add_space_prefix=True, remove_extra_whitespaces=True), t5]

    def make(self, random: Random) -> Case:
        texts = [*random.sample(TEXTS, 3), mutate_text(random, random.choice(TEXTS))]
        if random.random() < 0.6:
            return Case(json_bytes(random, json.loads(random.choice(self.jsons)), KNOWN), texts)
        entries = mutate_metadata(
            random, random.choice(self.metadata), ["gpt2", "llama", "t5", "default", "smollm", 0, 1, 300, "<unk>", "a"]
        )
        if random.random() < 0.1:
            entries.append(("tokenizer.ggml.precompiled_charsmap", Value("array", random.choice(CHARSMAPS), "uint8")))
        return Case(gguf_bytes(list(dict(entries).items())), texts)

    def run(self, case: Case) -> None:
        path = self.folder / ("tokenizer.gguf" if case.file.startswith(b"GGUF") else "tokenizer.json")
        path.unlink(missing_ok=True)
        path.write_bytes(case.file)
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_json(path)
        else:
            vocabulary = GGUFVocabulary(GGUFFile(path))
            vocabulary.chat_template()
            tokenizer = vocabulary.tokenizer(NO_IDS)
        _ = tokenizer.bos_token, tokenizer.eos_token, tokenizer.special_ids
        refusal: FerrumError | None = None
        for text in case.texts:
            try:
                self._there_and_back(tokenizer, text)
            except FerrumError as error:  # one text may be refused; the others count as well
                refusal = error
        if refusal is not None:
            raise refusal
        for token in (0, 1, tokenizer.vocab_size - 1, tokenizer.vocab_size, 2**31):
            tokenizer.token_text(token)

    def _there_and_back(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, add_special_tokens=True)
        if not all(isinstance(token, int) and token >= 0 for token in ids):
            raise Wrong("an id is no whole number")
        ids = ids[:COMPARED]  # an allowed growth makes millions, and they are read four times here
        for skip in (True, False):
            whole = tokenizer.decode(ids, skip_special_tokens=skip)
            stream = IncrementalDetokenizer(tokenizer, skip)
            streamed = "".join(stream.push(token) for token in ids) + stream.finish()
            if streamed != whole:
                raise Wrong(f"a stream decodes to {streamed[:50]!r}, the whole text to {whole[:50]!r}")

    def show(self, case: Case) -> str:
        return f"{case.file[:300]!r} … {case.file[-1500:]!r}, texts {[text[:60] for text in case.texts]!r}"
