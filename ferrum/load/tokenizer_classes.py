"""The special tokens of a tokenizer whose files name none: those of its class in transformers.

Owns: the table, as data, and which class is used. Refuses to know: what the files name themselves.
Specs: LOAD-55. Source: the tokenizer classes of transformers and its `AutoTokenizer`.
Next: `ferrum.load.tokenizer_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _tokens_by_name(texts: str, **extra: str) -> dict[str, str]:
    """Seven texts in the order of `_NAMES`, "-" for none."""
    return {name: text for name, text in zip(_NAMES, texts.split(), strict=True) if text != "-"} | extra


_BART = _tokens_by_name("<s> </s> <unk> </s> <pad> <s> <mask>")
_BERT = _tokens_by_name("- - [UNK] [SEP] [PAD] [CLS] [MASK]")
_ENTITIES = {"entity_unk_token": "[UNK]", "entity_pad_token": "[PAD]", "entity_mask_token": "[MASK]"}
_ENTITIES |= {"entity_mask2_token": "[MASK2]"}
_FILL = {"prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>", "eot_token": "▁<EOT>"}
_CLASSES: tuple[tuple[str, Mapping[str, str | None]], ...] = (
    ("Llama", _tokens_by_name("<s> </s> <unk> - - - -")),
    ("CodeLlama", _tokens_by_name("<s> </s> <unk> - - - -", **_FILL, fill_token="<FILL_ME>")),
    ("GPT2 CodeGen", {**_tokens_by_name("<|endoftext|> <|endoftext|> <|endoftext|> - - - -"), "pad_token": None}),
    ("Whisper", _tokens_by_name("<|endoftext|> <|endoftext|> <|endoftext|> - - - -")),
    ("GPTNeoX", _tokens_by_name("<|endoftext|> <|endoftext|> <|endoftext|> - <|padding|> - -")),
    ("Qwen2 Qwen3_5", _tokens_by_name("- <|endoftext|> <|endoftext|> - <|endoftext|> - -")),
    ("Gemma Siglip2", _tokens_by_name("<bos> <eos> <unk> - <pad> - <mask>")),
    ("Cohere", _tokens_by_name("<BOS_TOKEN> <|END_OF_TURN_TOKEN|> <UNK> <SEP> <PAD> <CLS> <MASK_TOKEN>")),
    ("T5 Lasr VideoPrism", _tokens_by_name("- </s> <unk> - <pad> - -")),
    ("Bart Barthez Blenderbot Camembert LED LayoutLMv3 LayoutXLM MBart MarkupLM Mvp Nllb Roberta XLMRoberta", _BART),
    ("MBart50", _tokens_by_name("- </s> <unk> </s> <pad> <s> <mask>")),
    ("Luke", _BART | {"entity_1_token": "<ent>", "entity_2_token": "<ent2>"} | _ENTITIES),
    ("MLuke", _BART | {"entity_1_token": "▁<ent>", "entity_2_token": "▁<ent2>"} | _ENTITIES),
    ("Bert ConvBert DPRContextEncoder DPRQuestionEncoder DPRReader DistilBert LayoutLMv2 Lxmert MobileBert", _BERT),
    ("RoFormer SqueezeBert", _BERT),
    ("Splinter", _BERT | {"question_token": "[QUESTION]"}),
    ("Albert FNet RemBert", _tokens_by_name("[CLS] [SEP] <unk> [SEP] <pad> [CLS] [MASK]")),
    ("Deberta DebertaV2", _tokens_by_name("[CLS] [SEP] [UNK] [SEP] [PAD] [CLS] [MASK]")),
    ("BigBird", _tokens_by_name("<s> </s> <unk> [SEP] <pad> [CLS] [MASK]")),
    ("MPNet", _tokens_by_name("<s> </s> [UNK] </s> <pad> <s> <mask>")),
    ("Funnel XLNet", _tokens_by_name("<s> </s> <unk> <sep> <pad> <cls> <mask>")),
    ("SeamlessM4T XGLM", _tokens_by_name("<s> </s> <unk> </s> <pad> <s> -")),
    ("Herbert", _tokens_by_name("- - <unk> </s> <pad> <s> <mask>")),
    ("Nougat", _tokens_by_name("<s> </s> <unk> - <pad> - -")),
    ("Pegasus", _tokens_by_name("- </s> <unk> - <pad> - <mask_2>")),
    ("Udop", _tokens_by_name("- </s> <unk> </s> <pad> - -")),
    ("CLIP", _tokens_by_name("<|startoftext|> <|endoftext|> <|endoftext|> - <|endoftext|> - -")),
    ("Esmc", _tokens_by_name("<cls> <eos> <unk> - <pad> <cls> <mask>", chain_break_token="|")),
    ("Reformer", _tokens_by_name("- </s> <unk> - - - -")),
    ("OpenAIGPT", _tokens_by_name("- - <unk> - - - -")),
    ("Tipsv2", _tokens_by_name("- - <unk> - <pad> - -")),
)
CLASS_TOKENS: Mapping[str, Mapping[str, str | None]] = {
    f"{name}Tokenizer": tokens for names, tokens in _CLASSES for name in names.split()
}
"""Special tokens by class, without the ending "Fast". None means that there is none, whatever tokenizer.json pads
with."""

_OWN_RULES = frozenset({"mistral"})
"""Values of `model_type` for which transformers follows tokenizer.json, whatever class a file names."""


def class_tokens(
    names: tuple[Any, Any], model_type: Any, is_byte_level: Callable[[], bool]
) -> Mapping[str, str | None]:
    """The special tokens of the first class that is named; `names` are those of tokenizer_config.json and config.json.
    A Llama class says nothing about a byte-level vocabulary, for which it was not made."""
    name = next((name for name in names if isinstance(name, str) and name), "").removesuffix("Fast")
    by_name = CLASS_TOKENS.get(name, {})
    if not by_name or model_type in _OWN_RULES or (name == "LlamaTokenizer" and is_byte_level()):
        return {}
    return by_name
