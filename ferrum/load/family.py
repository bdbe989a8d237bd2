"""The form of a row that describes one family of transformers.

Owns: the words in which a row of `ferrum.load.families` says what the models of a family compute. Refuses to know: any
single family.
Specs: LOAD-22 to LOAD-24, LOAD-90. Next: `ferrum.load.families_experts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ferrum.load.layer_rules import LayerRules
from ferrum.load.layout import Layout
from ferrum.load.layouts_json import LLAMA
from ferrum.load.limits import NumberKey

Words = Mapping[str, str]
"""Our name of a size, which is Llama's key, and this family's key."""


COUNTS = ("num_local_experts", "num_experts")
"""The two keys of the number of experts, an old and a new one."""


@dataclass(frozen=True)
class ExpertKeys:
    """The keys for the size of experts, and whether the weights of chosen experts are normalised: True, False, or the
    key that says it, false if absent. The number of experts stands under one of `COUNTS`."""

    size: str = "intermediate_size"
    normalised: bool | str = True
    shared_size: str | None = None
    shared_weight: bool = False


@dataclass(frozen=True)
class HuggingFaceFamily:
    """One `model_type` of config.json. A default is that of the transformers class, for a key that the file leaves
    out."""

    name: str
    causal_class: str  # the entry of `architectures` that this project can run; letter case is ignored
    base_class: str  # the same without a head; some whole models are saved under this name
    layout: Layout = LLAMA
    words: Words = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # by our name; "rope_parameters" is for all rotary keys
    constants: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig that all its models share
    numbers: Mapping[str, NumberKey] = field(default_factory=dict)  # fields of ModelConfig, and the keys that hold them
    intermediate_factor: int = 0  # intermediate_size / hidden_size, where the file does not give it
    activations: Mapping[str, str] = field(default_factory=dict)  # names with another meaning in this family
    biases: tuple[str, ...] = ()  # linears that always have a bias
    bias_flags: Mapping[str, tuple[bool, tuple[str, ...]]] = field(default_factory=dict)  # key -> default, linears
    part_flags: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # key, false if absent -> parts that exist only if it is true
    rules: LayerRules | None = None  # which layers slide, rotate, have experts; None: all are alike, none slides
    experts: ExpertKeys | None = None
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # keys that must be absent or one of these
    harmless: frozenset[str] = frozenset()
    variants: tuple[tuple[str, Any, HuggingFaceFamily], ...] = ()  # (key, value, row to follow)

    @property
    def classes(self) -> tuple[str, str]:
        """The names in `architectures` that belong to this family."""
        return self.causal_class, self.base_class

    def word(self, word: str) -> str:
        """This family's key for one of our names."""
        return self.words.get(word, word)

    @property
    def keys(self) -> frozenset[str]:
        """All keys of this family that the row reads."""
        experts = () if self.experts is None else (*COUNTS, self.experts.size, "num_experts_per_tok")
        of_experts = [getattr(self.experts, name, None) for name in ("normalised", "shared_size")]
        return frozenset(
            [
                *self.words.values(),
                *(number.key for number in self.numbers.values()),
                *self.bias_flags,
                *self.part_flags,
                *(self.rules.keys if self.rules is not None else ()),
                *experts,
                *(key for key in of_experts if isinstance(key, str)),
                *(key for key, _, _ in self.variants),
            ]
        )


def family(name: str, model: str, **row: Any) -> HuggingFaceFamily:
    """A row whose classes are named after the model."""
    return HuggingFaceFamily(name, f"{model}ForCausalLM", f"{model}Model", **row)


PROJECTIONS = ("query", "key", "value")
ATTENTION_LINEARS = (*PROJECTIONS, "output")
MLP_LINEARS = ("gate", "up", "down")
ALL_LINEARS = (*ATTENTION_LINEARS, "up", "down")
"""The linears of a layer whose MLP has no gate."""
EXPERT_LINEARS = ("router", "expert_gate", "expert_up", "expert_down")
ATTENTION_BIAS = {"attention_bias": (False, ATTENTION_LINEARS)}
GRANITE_SCALES = {
    "embedding_scale": NumberKey("embedding_multiplier"),
    "residual_scale": NumberKey("residual_multiplier"),
    "attention_scale": NumberKey("attention_multiplier", 1.0),
    "logit_scale": NumberKey("logits_scaling", power=-1),
}
