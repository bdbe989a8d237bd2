"""The keys of a model's configuration that are not read: which change the result, and which are harmless.

Owns: the tables of keys that change what is computed and are refused unless neutral, of keys that ask for something
that only a request can ask for here, and of keys known to be harmless. A key in none of them gives a warning. Refuses
to know: what the keys that are read mean (`config_json`, `config_gguf`, `rope_json`).
Specs: LOAD-22, LOAD-81 to LOAD-83. Source: transformers' configuration classes; constants of llama.cpp's gguf-py.
Next: `ferrum.load.rope_json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from ferrum.errors import listed, warn
from ferrum.fields import Fields

Neutral = Mapping[str, tuple[Any, ...]]
"""For each key, the values that change nothing. null always changes nothing."""


def check_keys(
    fields: Fields, read_keys: Set[str], neutral: Neutral, harmless: Set[str], why: str = "which are not known here"
) -> None:
    """Raises `Unsupported` for a key whose value is not neutral. Warns once of keys that stand in no table; `why` says
    why they are ignored. A key that begins with _ is a note of the program that wrote the file."""
    keys = [key.removeprefix(fields.prefix) for key in fields.values if key.startswith(fields.prefix)]
    for key in keys:
        if key in neutral and not is_neutral(fields.get(key), neutral[key]):
            raise fields.refused(key)
    known_keys = {*read_keys, *neutral, *harmless}
    unknown = [key for key in keys if key not in known_keys and key in fields and not key.startswith("_")]
    if unknown:
        warn(f"{fields.where}: ignored: {listed([fields.prefix + key for key in unknown])}, {why}")


def check_requests(fields: Fields) -> None:
    """Warns of keys that forbid or force tokens: here only a request can do that."""
    ignored = [key for key, values in FORCING.items() if not is_neutral(fields.get(key), values)]
    if ignored:
        warn(f"{fields.where}: ignored: {listed(ignored)}, which here only a request can ask for")


def is_neutral(value: Any, neutral: Iterable[Any]) -> bool:
    """True if a value changes nothing. A GGUF file may have one value per layer: then all of them must be neutral."""
    each = value.tolist() if isinstance(value, np.ndarray) else [value]
    return all(element is None or element in neutral for element in each)


def words(text: str) -> frozenset[str]:
    """The names in a text, separated by spaces."""
    return frozenset(text.split())


CONFIG_NEUTRAL: Neutral = {
    "activation": ("swiglu", "silu"),
    "add_cross_attention": (False,),
    "alibi": (False,),
    "attention_bias": (False,),
    "attention_multiplier": (),
    "attention_sinks": (False,),
    "attn_logit_softcapping": (),
    "bias": (False,),
    "clip_qkv": (),
    "compression_config": ({},),
    "cross_attention_hidden_size": (),
    "embedding_multiplier": (1.0,),
    "embedding_scale": (1.0,),
    "final_logit_softcapping": (),
    "is_encoder_decoder": (False,),
    "logit_scale": (1.0,),
    "logits_scaling": (1.0,),
    "mlp_bias": (False,),
    "moe_num_experts": (0,),
    "mup_width_multiplier": (1.0,),
    "n_routed_experts": (0,),
    "no_rope_layers": ([],),
    "num_experts": (0,),
    "num_experts_per_tok": (0,),
    "num_local_experts": (0,),
    "num_nextn_predict_layers": (0,),
    "per_layer_config": ({},),
    "pruned_heads": ({},),
    "qk_layer_norms": (False,),
    "qk_norm": (False,),
    "qkv_bias": (False,),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1.0,),
    "rope_interleaved": (False,),
    "scale_depth": (),
    "scale_emb": (1, 1.0),
    "sep_token_ids": (),
    "text_config": ({},),
    "use_mrope": (False,),
    "use_qk_norm": (False,),
    "use_resampler": (False,),
    "vision_config": ({},),
}
"""Keys of config.json that change what is computed, in ways that are not implemented here."""

CHOICES = words("""
    assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight assistant_lookbehind
    diversity_penalty do_sample dola_layers early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty
    epsilon_cutoff eta_cutoff is_assistant length_penalty max_length max_matching_ngram_size max_new_tokens max_time
    min_length min_new_tokens min_p num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams
    num_return_sequences penalty_alpha presence_penalty frequency_penalty prompt_lookup_num_tokens
    remove_invalid_values renormalize_logits repetition_penalty speculation_type target_lookbehind temperature tfs
    top_a top_h top_k top_p typical_p use_mtp xtc_probability xtc_threshold
""")
"""Keys about the choice of tokens and their number. A request decides that; these are ignored."""

FORCING: Neutral = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_decoder_ids": ([],),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "sequence_bias": ([], {}),
    "stop_strings": ([], ""),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "watermarking_config": ({},),
}
"""Keys that forbid or force tokens for every request. They give a warning."""

_RUNNING = words("""
    cache_config cache_implementation compile_config continuous_batching_config decoder_start_token_id disable_compile
    low_memory max_cache_len output_attentions output_hidden_states output_logits output_scores pad_token_id
    prefill_chunk_size return_dict return_dict_in_generate return_legacy_cache transformers_version use_cache
""")
"""Keys about the program that runs the model, in either file."""

GENERATION_READ = frozenset(["bos_token_id", "eos_token_id"])
GENERATION_HARMLESS = (
    CHOICES | _RUNNING | FORCING.keys() | frozenset(["chat_format", "max_window_size", "trust_remote_code"])
)

CONFIG_READ = words("""
    architectures bos_token_id eos_token_id head_dim hidden_act hidden_size intermediate_size layer_types
    max_position_embeddings model_type num_attention_heads num_hidden_layers num_key_value_heads
    original_max_position_embeddings partial_rotary_factor quantization quantization_config rms_norm_eps
    rope_parameters rope_scaling rope_theta sliding_window tie_word_embeddings use_sliding_window vocab_size
""")

CONFIG_HARMLESS = (
    CHOICES
    | _RUNNING
    | FORCING.keys()
    | words("""
    attention_dropout attention_probs_dropout_prob attention_softmax_in_fp32 attn_implementation attn_pdrop
    auto_map base_model base_model_ep_plan base_model_fsdp_plan base_model_name_or_path base_model_pp_plan
    base_model_tp_plan bos_token chat_template chunk_size_feed_forward classifier_dropout custom_pipelines dataset
    draft_vocab_size dtype embd_pdrop embedding_dropout eos_token experts_implementation finetuning_task
    gradient_checkpointing hidden_dropout hidden_dropout_prob id2label init_std initializer_range internal_version
    is_decoder is_llama_config keys_to_ignore_at_inference label2id library_name log_scale max_seq_len
    max_seq_length max_sequence_length max_window_layers mlp_dropout model_max_length name_or_path
    neftune_noise_alpha num_labels output_past output_router_logits pad_token padding_side pixel_shuffle_factor
    prefix pretraining_tp problem_type resid_pdrop residual_dropout router_aux_loss_coef router_jitter_noise
    scale_attention_softmax_in_fp32 sep_token_id summary_activation summary_proj_to_labels summary_type
    summary_use_proj tags task_specific_params tf_legacy_loss tie_encoder_decoder tie_last_hidden_states
    tokenizer_class tokenizer_name torch_dtype torchscript transformers.js_config unk_token_id unsloth_fixed
    unsloth_version use_bfloat16 use_flash_attention use_flash_attention_2 use_flash_attn use_flashattn
    use_reentrant_checkpointing vocab_file
""")
)
"""Keys about training, saving and naming a model, and about tasks other than text generation."""

ROPE_READ: dict[str, frozenset[str]] = {
    kind: frozenset(["rope_type", "type", "rope_theta", "partial_rotary_factor", *keys.split()])
    for kind, keys in {
        "default": "",
        "linear": "factor",
        "dynamic": "factor",
        "longrope": "short_factor long_factor factor attention_factor original_max_position_embeddings",
        "su": "short_factor long_factor factor attention_factor original_max_position_embeddings",
        "llama3": "factor low_freq_factor high_freq_factor original_max_position_embeddings",
        "yarn": "factor original_max_position_embeddings beta_fast beta_slow attention_factor mscale mscale_all_dim "
        "truncate llama_4_scaling_beta",
    }.items()
}
ROPE_HARMLESS = frozenset(["finetuned", "max_position_embeddings"])
ROPE_NEUTRAL: Neutral = {"mrope_section": (), "mrope_interleaved": (False,), "llama_4_scaling_beta": ()}

GGUF_READ = words("""
    attention.head_count attention.head_count_kv attention.key_length attention.layer_norm_rms_epsilon
    attention.value_length block_count context_length embedding_length feed_forward_length
    rope.dimension_count rope.freq_base rope.scale_linear rope.scaling.attn_factor rope.scaling.factor
    rope.scaling.original_context_length rope.scaling.type rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast
    rope.scaling.yarn_beta_slow
""")
"""Keys that all families read, without the name of the architecture in front. So are the following tables."""

GGUF_NEUTRAL: Neutral = {
    "attention.causal": (True,),
    "attention.output_scale": (0, 1),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "router_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
    "expert_weights_scale": (0, 1),
    "rope.scaling.yarn_ext_factor": (1, -1),
    **dict.fromkeys(words("""
        activation_sparsity_scale altup.active_idx altup.num_inputs attention.clamp_kqv attention.decay_lora_rank
        attention.gate_lora_rank attention.group_norm_epsilon attention.group_norm_groups attention.iclr_lora_rank
        attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.key_length_mla
        attention.key_length_swa attention.kv_lora_rank attention.layer_norm_epsilon attention.max_alibi_bias
        attention.q_lora_rank attention.relative_buckets_count attention.scale attention.shared_kv_layers
        attention.sliding_window attention.sliding_window_pattern attention.temperature_length
        attention.temperature_scale attention.value_length_mla attention.value_length_swa
        attention.value_residual_mix_lora_rank attention.value_scale attn_logit_softcapping
        convnext.block_count convnext.embedding_length
        decoder_block_count dense_2_feat_in dense_2_feat_out dense_3_feat_in dense_3_feat_out
        embedding_length_per_layer_input expert_chunk_feed_forward_length expert_count expert_group_count
        expert_group_scale expert_group_used_count expert_shared_count expert_shared_feed_forward_length
        expert_used_count expert_weights_norm experts_per_group features_length
        final_logit_softcapping full_attention_interval interleave_moe_layer_step kda.head_dim
        leading_dense_block_count moe_every_n_layers moe_latent_size n_deepstack_layers nextn_predict_layers
        posnet.block_count posnet.embedding_length rescale_every_n_layers rope.dimension_count_swa
        rope.dimension_sections rope.freq_base_swa rope.scaling.alpha rope.scaling.yarn_log_multiplier
        shortconv.l_cache ssm.conv_kernel ssm.dt_b_c_rms ssm.group_count ssm.inner_size ssm.state_size
        ssm.time_step_rank swiglu_clamp_exp swiglu_clamp_shexp swin_norm time_decay_extra_dim time_mix_extra_dim
        token_shift_count wkv.head_size
    """), (0, False)),
}  # fmt: skip
"""Keys of GGUF that change what is computed, in ways that are not implemented here, or only in families that read
them."""

GGUF_HARMLESS = words("""
    classifier.output_labels decoder_start_token_id embedding_length_out expert_feed_forward_length
    expert_gating_func pooling_type rope.scaling.finetuned tensor_data_layout vocab_size
""")

GGUF_OTHER_TYPES = ("adapter", "imatrix", "mmproj")
"""Values of general.type of files that are not language models."""
GGUF_FOREIGN = ("adapter.", "clip.", "diffusion.", "imatrix.", "xielu.")
"""Beginnings of keys of files that are not language models, and of kinds of layers that no family here has."""
