"""The text model inside a vision model: its configuration and its tensors.

Owns: which models have one, which part of their config.json is about text, and the names of its tensors. Parts for
pictures are ignored, with a warning. Refuses to know: what the text model computes.
Specs: LOAD-95. Source: transformers' Gemma3ForConditionalGeneration and Mistral3ForConditionalGeneration.
Next: `ferrum.load.config_gguf`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ferrum.errors import warn
from ferrum.fields import Fields
from ferrum.load.known_keys import CONFIG_HARMLESS, check_keys, words
from ferrum.load.source import StoredTensor, TensorSource, missing
from ferrum.tensor.weights import Weight

TEXT_TYPES = {"gemma3": "gemma3_text", "mistral3": "mistral"}
"""model_type of a vision model -> that of its text model, if text_config does not give it."""

_OF_PICTURES = words("""
    boi_token_index eoi_token_index image_token_id image_token_index mm_tokens_per_image multimodal_projector_bias
    projector_hidden_act spatial_merge_size vision_config vision_feature_layer
""")
_SHARED = words(
    "architectures bos_token_id eos_token_id model_type quantization_config text_config tie_word_embeddings"
)
_OF_BOTH = ("tie_word_embeddings",)
"""Keys that also hold for the text if text_config does not have them. (Token ids are read from the whole file.)"""
_PREFIXES = {"language_model.": "", "model.language_model.": "model."}
"""The beginnings of names of the text's tensors, in older and in newer files, and the beginnings that replace them."""
_PICTURES = tuple(f"{model}{part}." for model in ("", "model.") for part in ("vision_tower", "multi_modal_projector"))
"""The beginnings of names of tensors for pictures. Any other tensor belongs to the text, or is unknown."""


def has_pictures(fields: Fields) -> bool:
    """True if config.json describes a text model among others."""
    kind = fields.get("model_type")
    return isinstance(kind, str) and kind in TEXT_TYPES and isinstance(fields.get("text_config"), dict)


def text_fields(fields: Fields) -> Fields:
    """The configuration of the text model: the whole file if it describes nothing else. Warns of the rest."""
    if not has_pictures(fields):
        return fields
    check_keys(fields, _SHARED, {}, CONFIG_HARMLESS | _OF_PICTURES)
    if "vision_config" in fields:
        warn(f"{fields.where}: ignored: 'vision_config'; of this model only the text is run")
    shared = {key: fields.get(key) for key in _OF_BOTH if key in fields}
    values = {"model_type": TEXT_TYPES[fields.text("model_type")], **shared, **fields.inner("text_config").values}
    return Fields(values, f"{fields.where}: text_config", null_is_absent=False)


class TextSource:
    """The tensors of the text model, under the names that they would have alone."""

    def __init__(self, source: TensorSource) -> None:
        self.path, self._source = source.path, source
        self._stored = {text: name for name in source.names() if (text := _text_name(name)) is not None}

    def names(self) -> Iterable[str]:
        return self._stored

    def _name(self, name: str) -> str:
        return self._stored[name] if name in self._stored else missing(self.path, name, self._stored)

    def describe(self, name: str) -> StoredTensor:
        return replace(self._source.describe(self._name(name)), name=name)

    def weight(self, name: str) -> Weight:
        return self._source.weight(self._name(name))

    def stack(self, name: str) -> list[Weight]:
        return self._source.stack(self._name(name))

    def vector(self, name: str) -> np.ndarray:
        return self._source.vector(self._name(name))


def _text_name(name: str) -> str | None:
    """None for a tensor of another part."""
    if name.startswith(_PICTURES):
        return None
    return next(
        (prefix + name.removeprefix(begin) for begin, prefix in _PREFIXES.items() if name.startswith(begin)), name
    )
