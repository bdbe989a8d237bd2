"""Makes tests/goldens/tiny/*.gguf: small random Llama models as GGUF files, and what transformers says of them.

    python tests/goldens/make_tiny_ggufs.py

Written as llama.cpp's converter writes them: q and k in interleaved RoPE order, llama3 scaling as a tensor of divisors,
no tensor for a tied head. The golden beside each, NAME.npz, holds token ids and the float32 logits of transformers over
the weights as they are stored, dequantised by the gguf package.
Needs torch, transformers and gguf (extra `oracle`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Ggml
from make_tiny_models import BASE, LLAMA3, OUT, WIDE, YARN, Model, Tiny, random_model, random_tokens, save_golden

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """model.layers.0.mlp.up_proj.weight -> blk.0.ffn_up.weight"""
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        number, inner = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{number}.{GGUF_NAMES[inner]}.{kind}"
    return f"{GGUF_NAMES[stem]}.{kind}"


def interleave(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of half-split heads -> rows of interleaved heads, as llama.cpp's converter orders those of q and k."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def llama3_factors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    """The divisors of the frequencies that llama.cpp's converter writes for llama3 scaling."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / head_dim)
        fits = rope["original_max_position_embeddings"] / wavelength
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = min(max((fits - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def write_metadata(writer: gguf.GGUFWriter, config: Any, window: int | None) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if window is not None:
        writer.add_sliding_window(window)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))


def make_gguf(path: Path, model: Model, stored: Callable[[str], Ggml]) -> Model:
    """Writes the model, each matrix in the type that `stored` chooses; -> the model with the weights as stored."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    write_metadata(writer, config, getattr(config, "sliding_window", None))
    tied = config.tie_word_embeddings
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        values = tensor.float().numpy()
        kind = stored(name) if values.ndim == 2 else Ggml.F32
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        ordered = values if heads is None else interleave(values, heads)
        data = gguf.quantize(ordered, kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        # the quantisation of a row does not depend on where the row stands
        kept[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(values, kind), kind).reshape(values.shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rounded = type(model)(config).float()
    rounded.load_state_dict(kept, strict=not tied)
    return rounded


def mixed(name: str) -> Ggml:
    """What llama.cpp's quantiser does in spirit: some of everything."""
    for part, kind in (("embed", Ggml.Q8_0), ("lm_head", Ggml.Q8_0), ("down", Ggml.Q4_0), ("v_proj", Ggml.F16)):
        if part in name:
            return kind
    return Ggml.Q4_1


def make_golden(tiny: Tiny, seed: int, stored: Callable[[str], Ggml]) -> None:
    path = OUT / f"{tiny.name}.gguf"
    rounded = make_gguf(path, random_model(tiny, seed), stored)
    rounded.config._attn_implementation = "eager"
    tokens = random_tokens(tiny, seed)
    with torch.no_grad():
        logits = rounded(torch.tensor([tokens])).logits[0].numpy()
    save_golden(path.with_suffix(".npz"), tokens, logits)


# the rows of a wide model are multiples of 32, as block formats need
GGUFS = (
    (Tiny("llama3-f32", {**BASE, "num_key_value_heads": 2, "rope_parameters": LLAMA3}, tokens=90), lambda _: Ggml.F32),
    (Tiny("biases-bf16", {**BASE, "attention_bias": True, "mlp_bias": True}), lambda _: Ggml.BF16),
    (Tiny("yarn-f16", {**BASE, "num_key_value_heads": 1, "rope_parameters": YARN}, tokens=64), lambda _: Ggml.F16),
    (Tiny("mixed-quants", WIDE), mixed),
    (Tiny("tied-q8_0", {**WIDE, "tie_word_embeddings": True, "head_dim": 32}), lambda _: Ggml.Q8_0),
    (Tiny("tied-q4_0", {**WIDE, "tie_word_embeddings": True, "num_key_value_heads": 4}), lambda _: Ggml.Q4_0),
)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for seed, (tiny, stored) in enumerate(GGUFS, 100):
        make_golden(tiny, seed, stored)
        print(f"{tiny.name}.gguf", (OUT / f"{tiny.name}.gguf").stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
