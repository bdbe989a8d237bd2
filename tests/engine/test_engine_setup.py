"""ENGINE-17: impossible settings are refused by name. Prefixes are saved and loaded by the public calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ferrum import LLM
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.engine import assembly
from ferrum.errors import InvalidFormat, InvalidParameter, NotFound, ResourceExhausted, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.tensor.compositions import TensorOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

PROMPT = list(range(40, 56))


def tiny_llm(ops: TensorOps | None = None, **engine: Any) -> LLM:
    model = TinyModel(tiny_config(), tiny_params(tiny_config()), ByteTokenizer())
    return LLM.from_loaded(model, NumpyOps() if ops is None else ops, EngineConfig(**{"block_size": 4, **engine}))


@pytest.mark.clause("ENGINE-17", "ENGINE-18")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("kv_memory", value) for value in (0, -5, "1MiB", 1.5, None, True)],
        *[("host_kv_memory", value) for value in (-5, "1MiB", 1.5, None, True)],
        *[
            (name, value)
            for name in ("scheduler", "eviction", "compute", "kv_dtype", "backend", "dtype")
            for value in (["lru"], {}, None, 1, b"lru")
        ],
    ],
)
def test_a_configuration_names_the_field_that_has_the_wrong_type(field: str, value: object) -> None:
    with pytest.raises(InvalidParameter, match=f"^{field} ") as caught:
        EngineConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.clause("ENGINE-17")
def test_no_host_memory_is_a_configuration() -> None:
    assert EngineConfig(host_kv_memory=0).host_kv_memory == 0


@pytest.mark.clause("ENGINE-17", "ENGINE-40")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_backend_that_is_not_deterministic_cannot_be_asked_to_be(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(InvalidParameter, match="made with deterministic=True"):
        patch.setattr(assembly, "build_runner", lambda *_: pytest.fail("something was built first"))
        tiny_llm(load_backend(backend), deterministic=True)
    assert tiny_llm(load_backend(backend, deterministic=True), deterministic=True).runner.ops.deterministic
    tiny_llm(load_backend(backend, deterministic=True))  # more than was asked for


@pytest.mark.clause("ENGINE-17")
def test_a_backend_with_another_arithmetic_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"^compute is 'bfloat16', but this numpy was made with .*'float32'"):
        tiny_llm(compute="bfloat16")


@pytest.mark.clause("KV-35")
def test_a_prefix_goes_from_one_engine_to_another(tmp_path: Path) -> None:
    path = tmp_path / "prefix"
    assert tiny_llm().save_prefix(PROMPT, path) == 16
    other = tiny_llm()
    assert other.load_prefix(path) == 16
    other.generate([[*PROMPT, 1]])
    assert other.stats().kv.hit_tokens == 16
    for unlike in (tiny_llm(NumpyOps(deterministic=True)), tiny_llm(NumpyOps("float64"))):
        with pytest.raises(InvalidFormat):
            unlike.load_prefix(path)
    small = tiny_llm(kv_memory=3 * block_bytes(tiny_config(), 4, "float32"))
    with pytest.raises(ResourceExhausted):
        small.load_prefix(path)


@pytest.mark.clause("ENGINE-17", "KV-35")
def test_prefixes_need_prefix_caching(tmp_path: Path) -> None:
    path = tmp_path / "prefix"
    tiny_llm().save_prefix(PROMPT, path)
    llm = tiny_llm(prefix_caching=False)
    for call in (lambda: llm.save_prefix(PROMPT, tmp_path / "another"), lambda: llm.load_prefix(path)):
        with pytest.raises(Unsupported, match="prefix caching is off"):
            call()
    assert not (tmp_path / "another").exists()


@pytest.mark.clause("KV-35")
def test_a_prefix_that_cannot_be_written_is_no_accident(tmp_path: Path) -> None:
    llm = tiny_llm()
    with pytest.raises(NotFound, match="missing"):
        llm.save_prefix(PROMPT, tmp_path / "missing" / "prefix")
    with pytest.raises(InvalidParameter, match="path"):
        llm.save_prefix(PROMPT, tmp_path)
    assert not llm.stats().device.held
