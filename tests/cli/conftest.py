"""A tiny model in files, and ways to run the program on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from ferrum.cli.main import program
from tests.house.source import ROOT

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 32, 48, 2, 4, 2, 8
VOCAB = 257
CONTEXT = 256

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}  # no eos_token_id: it never ends by itself
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<answer>"


def write_model(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """Writes a Llama with random weights, one token for each byte, and a chat template unless `template` is None."""
    generator = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": weights(VOCAB, HIDDEN), "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{name}.weight"] = np.ones(HIDDEN, np.float32)
        for name, rows, columns in [
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ]:
            tensors[f"{prefix}.{name}.weight"] = weights(rows, columns)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template} if template else {}))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def byte_tokenizer() -> tokenizers.Tokenizer:
    """One token per byte, and one special token."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "plain", template=None)


Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Runs the program in this process: invoke("generate", "Hi", input=…)."""

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(program, [str(argument) for argument in arguments], input=input)

    return run


@pytest.fixture
def generate(invoke: Invoke, tiny: Path) -> Invoke:
    """Runs `generate` on the tiny model with the oracle backend."""

    def run(*arguments: object, model: Path = tiny, input: str | bytes | None = None) -> Result:
        return invoke("generate", "-m", model, "--backend", "numpy", "-n", 5, *arguments, input=input)

    return run


def command(*arguments: object) -> list[str]:
    """The program as a command line of its own."""
    return [sys.executable, "-m", "ferrum", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment of this process with this tree on the path. Stdout is buffered, as for users."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": str(ROOT)}


def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end, with nothing on standard input."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        env=environment(),
    )
