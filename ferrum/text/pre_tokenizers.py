r"""How each family of byte-level models cuts text before merging, by the name that GGUF files give it.

A pre-tokenizer is a list of regular expressions. Each one cuts every piece the one before left, into its matches and
what lies between them; byte-pair merges then never cross a cut.

Owns: the table, as data. Refuses to know: vocabularies, GGUF.
Sources: the `pre_tokenizer` of the families' published tokenizer.json files, under the names of llama.cpp's
`src/llama-vocab.cpp`; normalisation as in Hugging Face transformers (`models/qwen2`, `models/cohere`).
Specs: TEXT-10, TEXT-11. Next: `ferrum.text.gguf_sentencepiece`.
"""

from __future__ import annotations

from dataclasses import dataclass

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English contractions, in either case
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN35 = (
    rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_SEED_CODER = rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
# Words of any letters before and at least one lower-case letter, or the reverse: "HTMLParser" is HTML and Parser.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED_REST = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}{_CASED_REST}"
_GPT4O = rf"{_LEAD}{_UPPER}*{_LOWER}+{_ENDING}?|{_LEAD}{_UPPER}+{_LOWER}*{_ENDING}?|\p{{N}}{{1,3}}{_CASED_REST}"
_DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    _DIGIT,
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True)
class PreTokenizer:
    """What happens to text before byte-pair merging."""

    splits: tuple[str, ...]  # regular expressions (Oniguruma), applied in this order
    normalizes_nfc: bool = False  # Unicode normalisation form C first: decoding returns the normalised text
    ignore_merges: bool = False  # a piece that is itself a token is taken whole
    adds_bos: bool = False  # unless the file says otherwise, a raw prompt starts with BOS


_SMOLLM = PreTokenizer((_DIGIT, _GPT2))  # digits one by one, so a number never swallows the space before it
_LLAMA_BPE = PreTokenizer((_LLAMA3,), ignore_merges=True, adds_bos=True)
_QWEN = PreTokenizer((_QWEN2,), normalizes_nfc=True)
_LLAMA3_MERGED = PreTokenizer((_LLAMA3,))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer(_DEFAULT),
    **dict.fromkeys(("gpt-2", "phi-2", "jais", "trillion", "granite-docling"), PreTokenizer((_GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "minerva-7b"), _SMOLLM),
    "command-r": PreTokenizer((_DIGIT, _GPT2), normalizes_nfc=True),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), _LLAMA_BPE),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _LLAMA3_MERGED),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN),
    "qwen35": PreTokenizer((_QWEN35,), normalizes_nfc=True),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), PreTokenizer((_GPT4O,))),
    "seed-coder": PreTokenizer((_SEED_CODER,)),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    "deepseek-v3": PreTokenizer(_DEEPSEEK_V3),
}
"""By `tokenizer.ggml.pre`."""
