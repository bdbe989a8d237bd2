"""Model families of GGUF as data: where a file keeps each tensor of ours.

Owns: the table that a new architecture adds a row to. Refuses to know: how files are read (`ferrum.load.config_gguf`).
Specs: LOAD-27, LOAD-30. Source: llama.cpp's converter and its `models`. Next: `ferrum.load.source`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ferrum.load.layout import Layout

GGUF_LAYOUT = Layout(
    embedding="token_embd",
    norm="output_norm",
    head="output",
    layer={
        "attention_norm": "blk.{layer}.attn_norm",
        "query": "blk.{layer}.attn_q",
        "key": "blk.{layer}.attn_k",
        "value": "blk.{layer}.attn_v",
        "output": "blk.{layer}.attn_output",
        "mlp_norm": "blk.{layer}.ffn_norm",
        "gate": "blk.{layer}.ffn_gate",
        "up": "blk.{layer}.ffn_up",
        "down": "blk.{layer}.ffn_down",
    },
    derived=dict.fromkeys(("rope_freqs.weight", "attn_rot_embd", "attn_rot_embd.weight"), 1),
)


@dataclass(frozen=True)
class GGUFFamily:
    """One `general.architecture`."""

    name: str
    layout: Layout


GGUF_FAMILIES: dict[str, GGUFFamily] = {
    # the converter to GGUF interleaves q and k for this architecture only; Mistral is stored under it too
    "llama": GGUFFamily("llama", replace(GGUF_LAYOUT, interleaved=frozenset({"query", "key"}))),
}
