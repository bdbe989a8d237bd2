"""The special tokens that a GGUF file names: the texts of the beginning, the end, padding and the like.

Owns: the names of special tokens in templates, and their keys in GGUF metadata. Refuses to know: what they are for, the
files of a directory (`tokenizer_config`).
Specs: LOAD-52. Source: the GGUF format document, section on tokenizers. Next: `ferrum.load.tokenizer_config`.
"""

from __future__ import annotations

from ferrum.errors import quoted, warn
from ferrum.fields import LARGEST_INTEGER, Fields
from ferrum.text.gguf_tokens import NO_TOKEN

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The names, in templates, of the special tokens that any model may have."""

_GGUF = ("bos", "eos", "unknown", "seperator", "padding", "cls", "mask")  # "seperator" is spelt so in the format


def gguf_special_tokens(fields: Fields) -> dict[str, str]:
    """Texts by name. A token that the file does not name, or names by an id outside the vocabulary, is left out. The
    keys of `fields` begin with "tokenizer."."""
    if "ggml.tokens" not in fields:
        return {}
    tokens = fields.texts("ggml.tokens")
    defaults = _defaults(fields, len(tokens))
    texts: dict[str, str] = {}
    for name, role in zip(NAMES, _GGUF, strict=True):
        key = f"ggml.{role}_token_id"
        token = fields.integer(key, low=-LARGEST_INTEGER) if key in fields else defaults.get(role)
        if token is None or token in NO_TOKEN:
            continue
        if 0 <= token < len(tokens):
            texts[name] = tokens[token]
        else:
            warn(f"{fields.where}: {fields.prefix}{key} names token {quoted(token)}, which the model does not have")
    return texts


def _defaults(fields: Fields, size: int) -> dict[str, int]:
    """The same defaults as the tokenizer's: a template writes the same beginning as a raw prompt gets."""
    from ferrum.text.gguf_ends import default_ids
    from ferrum.text.gguf_tokens import PREFIX, token_types

    token_fields = Fields(fields.values, fields.where, PREFIX)
    return default_ids(token_fields, token_types(token_fields, size)) if "model" in token_fields else {}
