"""Model families of GGUF as data: where a file keeps each tensor, and what llama.cpp knows of an architecture.

Owns: the table to which a new architecture adds a row. Refuses to know: how files are read (`ferrum.load.config_gguf`).
Specs: LOAD-27, LOAD-30, LOAD-130 to LOAD-136. Source: llama.cpp's converter, `llama-model.cpp` and `models`.
Next: `ferrum.load.rope_gguf`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ferrum.load.known_keys import Neutral, words
from ferrum.load.layout import Layout
from ferrum.load.limits import NumberKey

_PLACE = "blk.{layer}."
_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "router": "ffn_gate_inp",
    "expert_gate": "ffn_gate_exps",
    "expert_up": "ffn_up_exps",
    "expert_down": "ffn_down_exps",
    "shared_gate": "ffn_gate_shexp",
    "shared_up": "ffn_up_shexp",
    "shared_down": "ffn_down_shexp",
    "shared_weight": "ffn_gate_inp_shexp",
}
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_ELSEWHERE = {
    **dict.fromkeys(("query", "key", "value"), "attn_qkv"),
    **{f"expert_{part}": f"ffn_{part}.{{expert}}" for part in ("gate", "up", "down")},
}
"""Other names that any file may use: one tensor for queries, keys and values; one tensor for each expert."""

RMS_NORM_EPSILON, LAYER_NORM_EPSILON = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
WINDOW, PATTERN, WINDOW_BASE = "attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"
YARN_DIVISOR, QUERY_GROWTH = "rope.scaling.yarn_log_multiplier", "attention.temperature_scale"
EXPERTS, CHOSEN = "expert_count", "expert_used_count"
EXPERT_WIDTH, SHARED_WIDTH = "expert_feed_forward_length", "expert_shared_feed_forward_length"

HEAD_NORMS = {"query_norm": "attn_q_norm", "key_norm": "attn_k_norm"}
AFTER_NORMS = {"attention_after": "post_attention_norm", "mlp_after": "post_ffw_norm"}
GATE_ABOVE_UP = {"gate": "ffn_up", "up": "ffn_up"}
ONE_NORM = {"mlp_norm": "attn_norm"}


def _layout(names: Mapping[str, str] | None = None, without: str = "", interleaved: bool = False) -> Layout:
    """Llama's layout, with other names for some parts, and without some parts. `interleaved`: queries and keys are
    stored in interleaved order, because llama.cpp rotates pairs of neighbours."""
    layer = {part: _PLACE + name for part, name in {**_NAMES, **(names or {})}.items() if part not in words(without)}
    interleaved_parts = frozenset({"query", "key"}) if interleaved else frozenset()
    derived = dict.fromkeys((*_ROPE_TENSORS, "attn_rot_embd", "attn_rot_embd.weight"), 1)
    return Layout("token_embd", "output_norm", "output", layer, interleaved=interleaved_parts, derived=derived)


@dataclass(frozen=True)
class Kinds:
    """How layers differ: the last of every `period` attends to all positions, the others have a window, if the model
    has one."""

    period: int = 0  # 0: layers do not differ
    has_window: bool = True  # True: attention.sliding_window is read
    window: int | None = None  # the window if the file has none
    scaled: bool = True  # True: the rotary scaling of the other layers holds for layers with a window
    base: float | None = None  # the rotary base of layers with a window, if the file has none; None: that of the others
    last_turns: bool = True  # False: the last layer of a period has no rotary embedding


@dataclass(frozen=True)
class GGUFFamily:
    """One `general.architecture`. Facts that its files do not state stand here, as llama.cpp has them."""

    layout: Layout
    optional: Mapping[str, str] = field(default_factory=dict)  # other names of parts, used if the file has them
    always: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig
    numbers: Mapping[str, NumberKey] = field(default_factory=dict)  # fields of ModelConfig, and the keys that give them
    parallel_key: str | None = None  # true if attention and MLP read the same x
    passed_over: tuple[str, ...] = ()  # keys that are ignored, because tensors say the same
    neutral: Neutral = field(default_factory=dict)  # keys that must be absent or one of these
    partial: bool = False  # True: some dimensions of a head may not be rotated
    kinds: Kinds = Kinds(has_window=False)
    wide_at: int | None = None  # a model with so many layers divides scores by √(hidden / heads)
    normalised: bool | None = None  # True: the weights of chosen experts add up to 1; None: no experts
    shared_weight: bool = False  # True: an expert for all tokens has a weight
    rope_keys: tuple[str, ...] = ()  # rotary keys read in addition to those of all families

    def fitted(self, names: Collection[str]) -> Layout:
        """The layout of a file that has tensors of these names. Its first layer decides."""
        optional = {part: _PLACE + name for part, name in {**_ELSEWHERE, **self.optional}.items()}
        present = {part: name for part, name in optional.items() if f"{name.format(layer=0, expert=0)}.weight" in names}
        return replace(self.layout, layer={**self.layout.layer, **present})

    @property
    def read_keys(self) -> frozenset[str]:
        """The keys that are read for this family in addition to those of all families."""
        keys = {number.key for number in self.numbers.values()} | {*self.passed_over, *self.rope_keys}
        keys |= {self.parallel_key} if self.parallel_key else set()
        keys |= {LAYER_NORM_EPSILON} if self.always.get("layer_norm") else set()
        keys |= {EXPERTS, CHOSEN, EXPERT_WIDTH, SHARED_WIDTH} if self.normalised is not None else set()
        if self.kinds.has_window:
            keys |= {WINDOW, PATTERN, WINDOW_BASE} if self.kinds.period else {WINDOW}
        return frozenset(keys)


_LAYER_NORMS = {"layer_norm": True}
_GELU_TANH = {"hidden_activation": "gelu_tanh"}
_GPT2 = {**_LAYER_NORMS, **_GELU_TANH, "gated": False}
_GPT_NEOX = {**_GPT2, "hidden_activation": "gelu"}
_GRANITE = {
    "attention_scale": NumberKey("attention.scale"),
    "embedding_scale": NumberKey("embedding_scale"),
    "residual_scale": NumberKey("residual_scale"),
    "logit_scale": NumberKey("logit_scale", power=-1),
}
_ROOT = {"embedding_scale": NumberKey("embedding_length", power=0.5)}
_GPT_OSS = {"hidden_activation": "quick_gelu", "swiglu_limit": 7.0, "up_offset": 1.0}

GGUF_FAMILIES: dict[str, GGUFFamily] = {
    "llama": GGUFFamily(_layout(interleaved=True), kinds=Kinds(), normalised=True),  # also Mistral and Mixtral
    "mistral3": GGUFFamily(_layout(interleaved=True), normalised=True, rope_keys=(YARN_DIVISOR, QUERY_GROWTH)),
    "qwen2": GGUFFamily(_layout()),
    "qwen3": GGUFFamily(_layout(HEAD_NORMS)),
    "qwen2moe": GGUFFamily(_layout(), normalised=False, shared_weight=True),
    "qwen3moe": GGUFFamily(_layout(HEAD_NORMS), normalised=True),
    "phi2": GGUFFamily(_layout(ONE_NORM), always=_GPT2, partial=True),
    "phi3": GGUFFamily(_layout(GATE_ABOVE_UP), kinds=Kinds(), partial=True),
    "gemma": GGUFFamily(_layout(), always=_GELU_TANH, numbers=_ROOT),
    "gemma2": GGUFFamily(
        _layout(AFTER_NORMS),
        always=_GELU_TANH,
        numbers={
            **_ROOT,
            "attention_softcap": NumberKey("attn_logit_softcapping", 50.0),
            "logit_softcap": NumberKey("final_logit_softcapping", 30.0),
        },
        kinds=Kinds(2, window=4096),
        wide_at=46,
    ),
    "gemma3": GGUFFamily(
        _layout({**HEAD_NORMS, **AFTER_NORMS}),
        always=_GELU_TANH,
        numbers={**_ROOT, "logit_softcap": NumberKey("final_logit_softcapping")},
        kinds=Kinds(6, scaled=False, base=10000.0),
        wide_at=62,
    ),
    "gpt2": GGUFFamily(replace(_layout(), positions="position_embd"), always=_GPT2),
    "gptneox": GGUFFamily(
        _layout(),
        always=_GPT_NEOX,
        parallel_key="use_parallel_residual",
        partial=True,
    ),
    "olmo2": GGUFFamily(  # and OLMo 3, which has windows
        _layout({**HEAD_NORMS, **AFTER_NORMS}, without="attention_norm mlp_norm"), kinds=Kinds(4, scaled=False)
    ),
    "olmoe": GGUFFamily(_layout(HEAD_NORMS), normalised=False),
    "granite": GGUFFamily(  # llama.cpp takes false for: no rotary embedding
        _layout(interleaved=True), numbers=_GRANITE, neutral={"rope.scaling.finetuned": (True,)}, normalised=True
    ),
    "granitemoe": GGUFFamily(_layout(interleaved=True), numbers=_GRANITE, normalised=True),
    "starcoder2": GGUFFamily(_layout(), always=_GPT2),
    "command-r": GGUFFamily(
        _layout(ONE_NORM, interleaved=True),
        optional=HEAD_NORMS,
        always=_LAYER_NORMS,
        numbers={"logit_scale": NumberKey("logit_scale")},
    ),
    "cohere2": GGUFFamily(
        _layout(ONE_NORM, interleaved=True),
        always=_LAYER_NORMS,
        numbers={"logit_scale": NumberKey("logit_scale")},
        kinds=Kinds(4, window=4096, last_turns=False),
    ),
    "stablelm": GGUFFamily(  # if the MLP has its own norm it comes after attention, whatever the key says
        _layout(ONE_NORM),
        optional={**HEAD_NORMS, "mlp_norm": "ffn_norm"},
        always=_LAYER_NORMS,
        passed_over=("use_parallel_residual",),
        partial=True,
    ),
    "glm4": GGUFFamily(_layout({**GATE_ABOVE_UP, **AFTER_NORMS}, interleaved=True), partial=True),
    "chatglm": GGUFFamily(_layout(GATE_ABOVE_UP, interleaved=True), partial=True),
    "falcon": GGUFFamily(
        _layout(ONE_NORM),
        optional={"attention_norm": "attn_norm_2"},
        always={**_GPT_NEOX, "parallel": True},
    ),
    "smollm3": GGUFFamily(_layout(interleaved=True), kinds=Kinds(4, has_window=False, last_turns=False)),
    "gpt-oss": GGUFFamily(
        _layout({"mlp_norm": "post_attention_norm", "sinks": "attn_sinks"}),
        always=_GPT_OSS,
        kinds=Kinds(2, window=128),
        normalised=True,
    ),
    "seed_oss": GGUFFamily(_layout({"mlp_norm": "post_attention_norm"})),
    "ernie4_5": GGUFFamily(_layout(interleaved=True)),
}
