r"""The pre-tokenizer of each family of byte-level models, by its name in GGUF files.

A pre-tokenizer is a list of regular expressions. Each expression cuts every piece of the previous one into its matches
and the text between them; byte-pair merges then never cross a cut.

Owns: the table, as data. Refuses to know: vocabularies, GGUF.
Sources: the `pre_tokenizer` of the families' published tokenizer.json files, under the names of llama.cpp's
`src/llama-vocab.cpp`; normalisation as in Hugging Face transformers (`models/qwen2`, `models/cohere`).
Specs: TEXT-10, TEXT-11. Next: `ferrum.text.gguf_sentencepiece`.
"""

from __future__ import annotations

from dataclasses import dataclass

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT, _DIGITS3 = r"\p{N}", r"\p{N}{1,3}"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English contractions, in either case
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3 = rf"{_ENDING}|{_LEAD}\p{{L}}+|{_DIGITS3}|{_SIGNS}|{_SPACES}"
_MINICPM5 = rf"{_ENDING}|{_LEAD}\p{{L}}+|\p{{N}}+|{_SIGNS}|{_SPACES}"
_PLAIN_QWEN2 = rf"{_LEAD}\p{{L}}+|{_DIGIT}|{_SIGNS}|{_SPACES}"
_QWEN2 = rf"{_ENDING}|{_PLAIN_QWEN2}"
_QWEN35 = rf"{_ENDING}|{_LEAD}[\p{{L}}\p{{M}}]+|{_DIGIT}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
_SEED_CODER = rf"{_ENDING}|{_LEAD}\p{{L}}+|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = (
    rf"{_ENDING}|{_LEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_JAIS2 = (
    rf"{_ENDING}|{_LEAD}\p{{L}}+|{_DIGITS3}|{_SIGNS}|\s*[\r\n]+"
    + "".join(rf"|\s{{{count}}}(?!\S)" for count in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
    + r"|\s"
)
# Words of any letters before and at least one lower-case letter, or the reverse: "HTMLParser" is HTML and Parser.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_REST = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_CASED = rf"{_LEAD}{_UPPER}*{_LOWER}+{_ENDING}?|{_LEAD}{_UPPER}+{_LOWER}*{_ENDING}?"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|{_DIGIT}{_CASED_REST}"
_GPT4O = rf"{_CASED}|{_DIGITS3}{_CASED_REST}"
_KIMI = (  # the same without Chinese characters, which are words of their own
    r"\p{Han}+|" + _CASED.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") + rf"|{_DIGITS3}|{_SIGNS}|{_SPACES}"
)
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    rf"{_CASED}|{_DIGIT}{_CASED_REST}",
)
# The rest is matched only where a number begins: a match at every digit would take time quadratic in its length.
_THREES_FROM_THE_RIGHT = r"(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{3}"
_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_SIGN_WORDS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, _DIGIT)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    # letters of scripts that have cases, as they were when the model was made
    "\\s?[A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d"
    "\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
    "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CHINESE,
    r"\p{N}+",
)
_DEEPSEEK_V3 = (_DIGITS3, _CJK, rf"{_SIGN_WORDS}[\r\n]*|{_SPACES}")
_SPARK = (_DIGITS3, _CJK, rf"{_SIGN_WORDS}|[\r\n]|\s+(?!\S)|\s+", _DIGIT)
_AFMOE = (_THREES_FROM_THE_RIGHT, _ASIAN, rf"{_SIGN_WORDS}[\r\n]*|{_SPACES}")
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_CHAMELEON = (
    r"<sentinel:[0-9]+>",
    r"IMGIMG[A-I]{1,4}Z",
    r"[\t\n]|    |  ",
    _DIGIT,
    r"[\p{P}!-/:-@\[-`{-~]",
    _GPT2,
)
_FALCON = (r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


@dataclass(frozen=True)
class PreTokenizer:
    """The rules of one family for text before byte-pair merging."""

    splits: tuple[str, ...]  # regular expressions (Oniguruma), applied in this order
    normalizes_nfc: bool = False  # Unicode normalisation form C first: decoding returns the normalised text
    ignore_merges: bool = False  # a piece that is itself a token is taken whole
    adds_bos: bool = False  # unless the file says otherwise, a raw prompt starts with BOS


_PLAIN = PreTokenizer((_GPT2,))
_NEOX = PreTokenizer((_GPT2,), normalizes_nfc=True)
_SMOLLM = PreTokenizer((_DIGIT, _GPT2))  # single digits are cut first, so a number has no space before it
_LLAMA_BPE = PreTokenizer((_LLAMA3,), ignore_merges=True, adds_bos=True)

_FAMILIES: tuple[tuple[str, PreTokenizer], ...] = (
    ("default", PreTokenizer(_DEFAULT)),
    ("gpt-2 phi-2 jais trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0", _PLAIN),
    ("mellum exaone4", _PLAIN),
    ("mpt olmo modern-bert", _NEOX),
    ("smollm starcoder refact codeshell minerva-7b exaone mellum2", _SMOLLM),
    ("command-r", PreTokenizer((_DIGIT, _GPT2), normalizes_nfc=True)),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 jina-v5-nano", _LLAMA_BPE),
    ("dbrx smaug-bpe chatglm-bpe", PreTokenizer((_LLAMA3,))),
    ("glm4 glm5", PreTokenizer((_LLAMA3,), ignore_merges=True)),
    ("minicpm5", PreTokenizer((_DIGITS3, _MINICPM5), ignore_merges=True)),
    ("jais-2", PreTokenizer((_JAIS2,))),
    ("qwen2 deepseek-r1-qwen f2llmv2", PreTokenizer((_QWEN2,), normalizes_nfc=True)),
    ("stablelm2 hunyuan solar-open grok-2 kormo megrez", PreTokenizer((_QWEN2,))),
    ("laguna", PreTokenizer((r"[^\n]+|\n+", _QWEN2))),
    ("ufakzeka", PreTokenizer((_PLAIN_QWEN2,))),
    ("qwen35", PreTokenizer((_QWEN35,), normalizes_nfc=True)),
    ("tekken", PreTokenizer((_TEKKEN,), ignore_merges=True, adds_bos=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((_GPT4O,))),
    ("granite-embed-multi-97m", PreTokenizer((_GPT4O,), ignore_merges=True)),
    ("tiny_aya cohere2moe", PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O))),
    ("kimi-k2", PreTokenizer((_KIMI,))),
    ("youtu", PreTokenizer(_YOUTU, ignore_merges=True)),
    ("seed-coder", PreTokenizer((_SEED_CODER,))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_BAILING,))),
    ("exaone-moe", PreTokenizer((_EXAONE_MOE,))),
    ("deepseek-coder", PreTokenizer(_DEEPSEEK_CODER)),
    ("deepseek-llm", PreTokenizer(_DEEPSEEK_LLM)),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer(_DEEPSEEK_V3)),
    ("spark2_5", PreTokenizer(_SPARK)),
    ("afmoe", PreTokenizer(_AFMOE)),
    ("superbpe", PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))"))),
    ("falcon", PreTokenizer(_FALCON)),
    ("chameleon", PreTokenizer(_CHAMELEON, adds_bos=True)),
    ("bloom poro-chat gpt3-finnish", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, _DIGIT))),
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: rules for names, rules in _FAMILIES for name in names.split()}
"""By `tokenizer.ggml.pre`."""
