"""From a loaded model to a few tokens.

Owns: what every model that loads has to do: compute finite numbers or say that they are not.
Refuses to know: where the model came from.
Next: `tests.fuzz.targets.gguf`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers
from click.testing import CliRunner

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.cli.main import program
from ferrum.config import EngineConfig
from ferrum.engine.setup import Model
from ferrum.text.token_bytes import BYTE_ALPHABET
from ferrum.text.tokenizer import Tokenizer
from tests.fuzz.target import Wrong
from tests.tiny import TinyModel

OPS = NumpyOps()
SMALL = EngineConfig(kv_memory=1 << 22, max_num_seqs=4, max_num_batched_tokens=32, max_waiting=8)


def byte_tokenizer() -> Tokenizer:
    """Token i is byte i, and token 256 ends a text."""
    vocabulary = {symbol: byte for byte, symbol in enumerate(BYTE_ALPHABET)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return Tokenizer(backend, eos_token_ids=(256,))


def check_answers(loaded: Model, tokens: int = 2) -> None:
    """Computes logits and tokens, with a tokenizer of bytes in place of the model's. Raises FerrumError, and `Wrong`
    for numbers that are not finite."""
    llm = LLM.from_loaded(TinyModel(loaded.config, loaded.params, byte_tokenizer()), OPS, SMALL)
    ids = [1 % loaded.config.vocab_size, 0, loaded.config.vocab_size - 1][: llm.max_model_len]
    logits = llm.logits(ids)
    if not np.isfinite(logits).all():
        raise Wrong("the logits are not finite")
    check_idle(llm)
    llm.generate([ids[:1]], SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True))
    check_idle(llm)


def check_shown(path: Path) -> None:
    """Checks that `inspect` prints a printable text, and no message of a defect. Raises `Wrong`."""
    shown = CliRunner().invoke(program, ["inspect", "--tensors", str(path)])
    if shown.exit_code not in (0, 1, 2) or "internal error" in shown.output:
        raise Wrong(f"inspect ends with {shown.exit_code}: {shown.output[:300]}")
    if not shown.output.replace("\n", "").isprintable():
        raise Wrong("inspect prints what a terminal would obey")


def check_idle(llm: LLM) -> None:
    """Checks that no request is left and no block is held. Raises `Wrong`."""
    if llm.engine.has_work or llm.scheduler.manager.device.held:
        raise Wrong(f"after the last answer the engine still holds {llm.scheduler.manager.device.held} blocks")
