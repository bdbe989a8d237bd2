"""Writes a small Llama with random weights and a real tokenizer into a folder, as transformers saves them."""

from __future__ import annotations

import sys
from pathlib import Path

import tokenizers
import torch
import transformers

TEXT = Path(__file__).with_name("lm_eval_tasks").joinpath("questions.jsonl").read_text(encoding="utf-8")
WORDS = 320


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE whose merges were learnt from the questions."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=sorted(alphabet), special_tokens=["<s>", "</s>"], show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def main(folder: str) -> None:
    torch.manual_seed(16)
    words = tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        initializer_range=0.3,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
