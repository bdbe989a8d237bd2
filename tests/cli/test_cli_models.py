"""CLI-30 to CLI-33: what models there are, and what is in one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ferrum.cli.progress import human_bytes
from ferrum.load.packaged import SMOLLM2
from ferrum.load.safetensors import SafetensorsSource
from tests.cli.conftest import CONTEXT, HEAD_DIM, KV_HEADS, LAYERS, VOCAB, Invoke

TENSORS = 2 + 9 * LAYERS


@pytest.mark.clause("CLI-30")
def test_pull_prints_the_path_and_nothing_else(invoke: Invoke, tiny: Path) -> None:
    result = invoke("pull", tiny)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tiny}\n", "")


@pytest.mark.clause("CLI-30")
def test_pull_offline_does_not_fetch(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # nor is the package installed
    result = invoke("pull", SMOLLM2.alias, "--offline")
    assert result.exit_code == 1 and "--offline" in result.stderr
    assert not (tmp_path / "empty").exists()


@pytest.mark.clause("CLI-31")
def test_models_lists_aliases_and_the_cache(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.gguf").write_bytes(bytes(2048))
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = invoke("models")
    assert result.exit_code == 0
    heading, alias, other = (line.split() for line in result.stdout.splitlines()[:3])
    assert heading == ["name", "size", "where"]
    assert alias == [SMOLLM2.alias, "-", "not", "downloaded"]
    assert other == [str(tmp_path / "other.gguf"), "2.0", "KiB", str(tmp_path / "other.gguf")]


@pytest.mark.clause("CLI-32")
def test_inspect_counts_what_is_there(invoke: Invoke, tiny: Path) -> None:
    described = json.loads(invoke("inspect", tiny, "--json", "--tensors").stdout)
    tensors = described["tensors"]
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    assert len(tensors) == TENSORS
    assert tensors[0].keys() == {"name", "type", "shape", "bytes"}
    assert (described["architecture"], described["layers"], described["vocab_size"]) == ("llama", LAYERS, VOCAB)
    assert (described["heads"], described["kv_heads"], described["head_dim"]) == (4, KV_HEADS, HEAD_DIM)
    assert described["rope"] == {"theta": 10000.0, "rotary_dim": HEAD_DIM, "scaling": "default", "factor": 1.0}
    assert described["parameters"] == parameters
    assert described["types"] == {"F32": {"tensors": TENSORS, "parameters": parameters, "bytes": 4 * parameters}}
    per_token = 2 * LAYERS * KV_HEADS * HEAD_DIM * 4  # keys and values in float32
    assert described["memory"] == {
        "weights_bytes": 4 * parameters,
        "kv_bytes_per_token": per_token,
        "kv_bytes_full_context": per_token * CONTEXT,
    }


@pytest.mark.clause("CLI-32")
def test_inspect_for_people(invoke: Invoke, tiny: Path) -> None:
    short = invoke("inspect", tiny).stdout.splitlines()
    assert any(line.split() == ["architecture", "llama"] for line in short)
    assert any(line.startswith("F32") and f"{TENSORS} tensors" in line for line in short)
    assert not any("embed_tokens" in line for line in short)
    listed = invoke("inspect", tiny, "--tensors").stdout.splitlines()
    assert len(listed) == len(short) + 1 + TENSORS
    assert any(line.split() == ["model.embed_tokens.weight", "F32", "257", "×", "32", "32.1", "KiB"] for line in listed)


@pytest.mark.clause("CLI-33")
def test_inspect_reads_no_tensor(invoke: Invoke, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(SafetensorsSource, "weight", refuse)
    monkeypatch.setattr(SafetensorsSource, "vector", refuse)
    assert invoke("inspect", tiny, "--tensors").exit_code == 0


@pytest.mark.clause("CLI-32")
def test_inspect_the_real_model(invoke: Invoke, smollm2_path: Path) -> None:
    described = json.loads(invoke("inspect", smollm2_path, "--json").stdout)
    assert described["parameters"] == 134_515_008
    assert {name: entry["tensors"] for name, entry in described["types"].items()} == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert "tensors" not in described


@pytest.mark.clause("CLI-32")
@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5120.0 GiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text
