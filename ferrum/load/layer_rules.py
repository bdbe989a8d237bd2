"""What config.json says of single layers: which slide, which rotate, which have experts. A layer slides if it has a
window.

Owns: the rules by which families fill in what a file leaves out. Refuses to know: which family has which rule
(`ferrum.load.families`).
Specs: LOAD-93, LOAD-94. Source: transformers' configuration classes. Next: `ferrum.load.layouts_json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ferrum.errors import InvalidFormat, Unsupported
from ferrum.fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"
Rule = Callable[[Fields, int], bool]
"""(file, number of a layer) -> whether the rule holds for that layer."""


@dataclass(frozen=True)
class AllButEvery:
    """All layers but every count-th. A key may give another count."""

    count: int
    key: str | None = None

    def __call__(self, fields: Fields, layer: int) -> bool:
        period = self.count if self.key is None else fields.integer(self.key, self.count)
        return (layer + 1) % period != 0


def every_layer(fields: Fields, layer: int) -> bool:
    return True


def from_max_window_layers(fields: Fields, layer: int) -> bool:
    """Layers from max_window_layers on."""
    return layer >= fields.integer("max_window_layers", 28, low=0)


def every_other_below_max_window_layers(fields: Fields, layer: int) -> bool:
    """Every second layer, starting with the first, below max_window_layers."""
    return layer % 2 == 0 and layer < fields.integer("max_window_layers", 28, low=0)


def sparse_step(fields: Fields, layer: int) -> bool:
    """Every decoder_sparse_step-th layer, except those in mlp_only_layers."""
    dense = fields.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(each, int) for each in dense):
        raise fields.wrong("mlp_only_layers", "a list of numbers of layers")
    return layer not in dense and (layer + 1) % fields.integer("decoder_sparse_step", 1) == 0


@dataclass(frozen=True)
class LayerRules:
    """The rules of a family."""

    alike: bool = False  # layer_types is ignored
    window: int | None = None  # the window if the file has no sliding_window
    slides: Rule | None = every_layer  # used if there are no layer_types; None: the layers that do not rotate
    switch: str | None = None  # a key; if it is absent or false, no layer slides
    rotates: str = "all"  # "all", "sliding", or a key with a list of ones and zeros
    sparse: Rule = every_layer  # which layers have experts, if the family has any
    local_theta: tuple[str, float] | None = None
    """The key, with its default, of the rotary base of sliding layers, to which no scaling applies; None: all layers
    rotate alike."""

    @property
    def keys(self) -> frozenset[str]:
        """The keys that the rules read and that not every family reads."""
        rule_keys = {"sliding_window"}
        rule_keys |= (
            {self.slides.key} if isinstance(self.slides, AllButEvery) and self.slides.key is not None else set()
        )
        rule_keys |= {"decoder_sparse_step", "mlp_only_layers"} if self.sparse is sparse_step else set()
        rule_keys |= {"no_rope_layers", "no_rope_layer_interval"} if self.rotates == "no_rope_layers" else set()
        rule_keys |= {self.switch} if self.switch is not None else set()
        return frozenset(rule_keys | ({self.local_theta[0]} if self.local_theta is not None else set()))


def rotating(fields: Fields, rules: LayerRules, sliding: list[bool]) -> list[bool]:
    """For each layer, whether queries and keys are rotated."""
    if rules.rotates == "sliding":
        return sliding
    if rules.rotates == "all":
        return [True] * len(sliding)
    if "no_rope_layers" not in fields:
        period = fields.integer("no_rope_layer_interval", 4)
        return [(layer + 1) % period != 0 for layer in range(len(sliding))]
    marks = fields.get("no_rope_layers")
    if not isinstance(marks, list) or len(marks) != len(sliding) or any(mark not in (0, 1) for mark in marks):
        raise fields.wrong("no_rope_layers", f"a list of ones and zeros, one for each of {len(sliding)} layers")
    return [mark == 1 for mark in marks]


def sliding_window(fields: Fields, rules: LayerRules | None) -> int | None:
    """The window of sliding layers. An absent key means the family's default, null means none."""
    if rules is not None and rules.switch is not None and not fields.flag(rules.switch, False):
        fields.optional_integer("sliding_window")  # 0 means none, too
        return None
    window = None if rules is None else rules.window
    if "sliding_window" in fields.values:
        window = fields.optional_integer("sliding_window", low=1)
    if rules is None and window is not None:  # in this family transformers ignores it, other engines do not
        raise Unsupported(f"{fields.refused('sliding_window')} in this family; null says that there is none")
    if window is not None and not fields.flag("use_sliding_window", True):  # other engines obey it in this family, too
        raise Unsupported(
            f"{fields.refused('use_sliding_window')} beside a window; sliding_window null says that there is none"
        )
    return window


def sliding_layers(fields: Fields, rules: LayerRules | None, layers: int, window: int | None) -> list[bool]:
    """For each layer, whether it attends to the window only."""
    kinds = layer_types(fields, layers)
    if kinds is not None:
        if (rules is None or rules.alike) and len(set(kinds)) > 1:
            raise fields.refused("layer_types", [f"all {FULL}", f"all {SLIDING}"])
        if window is None and SLIDING in kinds:
            raise InvalidFormat(f"{fields.where}: layer_types asks for {SLIDING}, but there is no sliding_window")
        return [kind == SLIDING for kind in kinds]
    if window is None or rules is None:
        return [False] * layers
    if rules.slides is None:
        return [not turns for turns in rotating(fields, rules, [False] * layers)]
    return [rules.slides(fields, layer) for layer in range(layers)]


def layer_types(fields: Fields, layers: int) -> list[str] | None:
    kinds = fields.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds) or len(kinds) != layers:
        raise fields.wrong("layer_types", f"a list of names, one for each of {layers} layers")
    if not set(kinds) <= {FULL, SLIDING}:
        raise fields.refused("layer_types", [FULL, SLIDING])
    return kinds
