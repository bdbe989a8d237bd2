"""The keys of a tokenizer that change what is computed or printed, beside tokenizer.json and in GGUF metadata.

Owns: the tables of the keys that transformers' tokenizer classes accept and that GGUF files have, as data, and the
warning for values that ask for something that is not done. Refuses to know: the values that are read
(`tokenizer_config`).
Specs: LOAD-56, LOAD-58. Source: the constructors of transformers' tokenizer classes; gguf-py's `constants.py`.
Next: `ferrum.load.templates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ferrum.errors import quoted, warn
from ferrum.fields import Fields
from ferrum.load.known_keys import check_keys, words
from ferrum.text.tokenizer_json import TokenizerFile

READ = words(
    "additional_special_tokens added_tokens_decoder bos_token chat_template cls_token eos_token "
    "extra_special_tokens mask_token model_specific_special_tokens pad_token sep_token split_special_tokens "
    "tokenizer_class unk_token"
)
"""Keys that are read. Any other key that ends in "_token" and holds a text also names a special token."""

FOLLOWED = words(
    "add_bos_token add_eos_token clean_text handle_chinese_chars do_basic_tokenize do_clean_text do_lowercase "
    "do_lowercase_and_remove_accent do_phonemize do_split_on_punc do_subword_tokenize do_upper_case "
    "do_word_tokenize errors extra_ids is_uroman keep_accents legacy legacy_behaviour merges never_split "
    "normalization normalize normalize_text phonemize remove_space replace_word_delimiter_char "
    "should_strip_spaces split_by_punct strip_accents tokenize_chinese_chars trim_offsets unk_id vocab "
    "wordpieces_prefix"
)
"""Keys about how a tokenizer is built or changes a text. tokenizer.json says the same and has priority."""

HARMLESS = words(
    # about batches: here a text is never cut or padded
    "max_length max_len model_max_length padding truncation pad_to_multiple_of pad_token_type_id padding_side "
    "stride truncation_side truncation_strategy model_input_names return_token_type_ids "
    # about files and libraries
    "backend emoji_file files_loaded gguf_file is_local jumanpp_kwargs local_files_only mecab_dic mecab_kwargs "
    "mecab_option merges_file monolingual_vocab_file name_or_path normalizer_file processor_class sp_model_kwargs "
    "source_spm spm_file src_vocab_file subword_tokenizer_type sudachi_kwargs target_spm target_vocab_file "
    "tokenizer_file tokenizer_object verbose vocab_file word_pronunciation_file word_shape_file "
    "word_tokenizer_type init_inputs auto_map tgt_vocab_file special_tokens_map_file from_slow use_fast "
    "trust_remote_code device_map revision transformers_version torch_dtype dtype unsloth_version "
    # about what transformers returns besides ids and text
    "start_n_top end_n_top chat_control_tokens response_schema response_template use_default_system_prompt "
    # about tables, pages, entities, speech and translation
    "spaces_between_special_tokens add_blank cell_trim_length cls_token_box entity_vocab generator id2lang lang2id "
    "lang_codes langs language language_codes mask_token_sent max_column_id max_depth max_entity_length "
    "max_input_chars_per_word "
    "max_mention_length max_question_length max_row_id max_width min_question_length num_madeup_words offset "
    "only_label_first_subword pad_token_box pad_token_label pad_width phonemizer_backend phonemizer_lang "
    "predict_timestamps question_encoder sep_token_box separate_vocabs source_lang src_lang strip_column_names "
    "vocab_size model_type tags_dict target_lang task tgt_lang token_type_ids_pattern update_answer_coordinates"
)
"""Keys that change neither ids nor text."""


def _steps(part: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part of tokenizer.json; a sequence is replaced by its steps."""
    if isinstance(part, Mapping) and isinstance(part.get(inner), list):
        for step in part[inner]:
            yield from _steps(step, inner)
    elif isinstance(part, Mapping):
        yield part


def _prefixes(file: TokenizerFile) -> bool:
    """True if tokenizer.json puts a space before a text."""
    cuts = _steps(file.parts.get("pre_tokenizer"), "pretokenizers")
    return any(step.get("type") == "Prepend" for step in _steps(file.parts.get("normalizer"), "normalizers")) or any(
        step.get("add_prefix_space") is True or step.get("prepend_scheme", "never") != "never" for step in cuts
    )


def _lowers(file: TokenizerFile) -> bool:
    steps = _steps(file.parts.get("normalizer"), "normalizers")
    return any(step.get("type") == "Lowercase" or step.get("lowercase") is True for step in steps)


def _is_true(value: Any, file: TokenizerFile) -> bool:
    return value is True


CHECKED: Mapping[str, tuple[Callable[[Any, TokenizerFile], bool], str]] = {
    "add_prefix_space": (
        lambda value, file: isinstance(value, bool) and value != _prefixes(file),
        "tokenizer.json says otherwise and is followed",
    ),
    "do_lower_case": (
        lambda value, file: value is True and not _lowers(file),
        "tokenizer.json keeps letters as they are and is followed",
    ),
    "clean_up_tokenization_spaces": (
        lambda value, file: value is True and '"Unigram"' in file.text,
        "spaces in front of punctuation are kept in what is printed",
    ),
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": (
        _is_true,
        "spaces in front of punctuation are kept in what is printed",
    ),
    "fix_mistral_regex": (_is_true, "the regular expression of tokenizer.json is followed"),
}
"""For each key: the test whether a value asks for something that is not done, and what is done instead."""


def warn_of_settings(fields: Fields, file: TokenizerFile) -> None:
    """Warns of each value in tokenizer_config.json that asks for something that is not done, and of unknown keys."""
    token_keys = {key for key in fields.values if key.endswith("_token")}
    check_keys(fields, READ | CHECKED.keys() | token_keys, {}, FOLLOWED | HARMLESS)
    for key, (differs, instead) in CHECKED.items():
        value = fields.get(key)
        if value is not None and differs(value, file):
            warn(f"{fields.where}: {key} is {quoted(value)}: {instead}")


# ---- GGUF
GGUF_READ = words(
    "add_bos_token add_eos_token add_sep_token add_space_prefix bos_token_id cls_token_id eom_token_id eos_token_id "
    "eot_token_id fim_mid_token_id fim_pad_token_id fim_pre_token_id fim_rep_token_id fim_sep_token_id "
    "fim_suf_token_id mask_token_id merges model normalizer.lowercase normalizer.strip_accents padding_token_id pre "
    "precompiled_charsmap remove_extra_whitespaces scores seperator_token_id suppress_tokens token_type tokens "
    "unknown_token_id"
)
"""Keys that are read, after "tokenizer.ggml."; chat templates are read as well."""

GGUF_HARMLESS = words(
    # about two texts that are compared
    "token_type_count "
    # older names of tokens for code
    "prefix_token_id suffix_token_id middle_token_id"
)
"""Keys that change neither ids nor text."""


GGUF_BESIDE = words("chat_template chat_templates huggingface.json rwkv.world")
"""Keys after "tokenizer.": templates, and copies of other formats."""


def _keys(fields: Fields) -> Iterator[str]:
    return (key.removeprefix(fields.prefix) for key in fields.values if key.startswith(fields.prefix))


def warn_of_metadata(fields: Fields) -> None:
    """Warns of GGUF metadata that asks for something that is not done. The keys of `fields` begin with "tokenizer."."""
    known_keys = {f"ggml.{key}" for key in GGUF_READ | GGUF_HARMLESS} | GGUF_BESIDE
    templates = {key for key in _keys(fields) if key.startswith("chat_template.")}
    check_keys(fields, known_keys | templates, {}, frozenset())
    key = "ggml.suppress_tokens"
    if key in fields and len(fields.integers(key)):
        warn(f"{fields.where}: {fields.prefix}{key} is not followed: these tokens may come in an answer")
