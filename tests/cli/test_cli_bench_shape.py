"""CLI-43, CLI-44: `bench --shape`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ferrum.backends.numpy_backend import NumbaOps
from ferrum.load import random_model, resolve
from ferrum.load.shapes import SHAPES
from ferrum.tensor.ops import Tensor
from tests.cli.conftest import Invoke

FLAGS = ("--json", "--backend", "numpy", "-p", 9, "-n", 3, "-b", 2, "-r", 1)


@pytest.fixture(autouse=True)
def small_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape so small that it computes at once. Files cannot be read."""
    rope = replace(SHAPES["llama-3.2-1b"].rope, rotary_dim=16)
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "kv_heads": 2}
    small = replace(SHAPES["llama-3.2-1b"], **sizes, head_dim=16, rope=rope, max_positions=64)  # type: ignore[arg-type]
    monkeypatch.setitem(SHAPES, "small", small)

    def resolved(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was looked for")

    monkeypatch.setattr(resolve, "resolve", resolved)


@pytest.mark.clause("CLI-43")
@pytest.mark.parametrize(("dtype", "measured"), [(None, "q4_0"), ("auto", "q4_0"), ("q8_0", "q8_0")])
def test_a_shape_is_measured_like_a_model(invoke: Invoke, dtype: str | None, measured: str) -> None:
    result = invoke("bench", "--shape", "small", *FLAGS, *(("--dtype", dtype) if dtype else ()))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found.pop("prefill_tok_s") > 0 and found.pop("decode_tok_s") > 0 and found.pop("peak_rss_bytes") > 0
    assert found.pop("threads") > 0
    assert found == {
        "model": "small (random)", "backend": "numpy", "dtype": measured, "prompt_len": 9, "gen_len": 3, "batch": 2,
        "decode_steps": 0, "replayed_steps": 0,
    }  # fmt: skip


@pytest.mark.clause("CLI-46")
def test_replayed_decode_steps_are_counted(invoke: Invoke) -> None:
    result = invoke("bench", "--shape", "small", *FLAGS, "--backend", "numba")
    found = json.loads(result.stdout)
    assert found["decode_steps"] == found["replayed_steps"] == 2 * 3 and "warning" not in result.stderr


@pytest.mark.clause("CLI-46")
def test_a_warning_names_what_keeps_decode_steps_from_being_replayed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear_add = NumbaOps.linear_add

    def slower(ops: NumbaOps, x: Tensor, *arguments: Any) -> Tensor:
        ops.tanh(x)
        return linear_add(ops, x, *arguments)

    monkeypatch.setattr(NumbaOps, "linear_add", slower)
    result = invoke("bench", "--shape", "small", *FLAGS, "--backend", "numba")
    found = json.loads(result.stdout)
    assert (found["decode_steps"], found["replayed_steps"]) == (6, 0)
    told = "warning: 6 of 6 decode steps were not replayed, which takes longer; not recorded: tanh"
    assert result.stderr.splitlines() == [told]


@pytest.mark.clause("CLI-43")
def test_other_flags_mean_what_they_always_do(invoke: Invoke) -> None:
    shape = ("bench", "--shape", "small", *FLAGS)
    for flags, word in [
        (("--max-model-len", 12), "prompt_len"),
        (("--kv-memory", "1KiB"), "--kv-memory"),
        (("--eviction", "none"), "--eviction"),
        (("-p", 100), "--prompt-len"),
        (("--dtype", "q3_0"), "--dtype"),
        (("--compute", "float1"), "--compute"),
    ]:
        result = invoke(*shape, *flags)
        assert (result.exit_code, result.stdout) == (2, "") and word in result.stderr


@pytest.mark.clause("CLI-44")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shape", "llama-4"), ("--shape", "'llama-4'", "smollm2-135m", "llama-3.1-8b")),
        (("--shape", ""), ("--shape", "llama-3.2-3b")),
        (("--shape", "small", "-m", "smollm2-135m-instruct"), ("--shape", "--model")),
        (("--model", "x.gguf", "--shape", "small"), ("--shape", "--model")),
    ],
)
def test_what_cannot_be_meant_is_refused(
    invoke: Invoke, arguments: tuple[str, ...], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_model, "random_model", None)  # no weights are made
    result = invoke("bench", *arguments, *FLAGS)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ") and all(word in result.stderr for word in words)


@pytest.mark.clause("CLI-44")
def test_help_lists_the_shapes(invoke: Invoke) -> None:
    shown = " ".join(invoke("bench", "--help").stdout.split())
    assert "--shape NAME" in shown and "llama-3.2-3b" in shown
