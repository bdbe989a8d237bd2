"""KV-35: a computed prefix is saved to a file and read again; a file that does not fit is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.errors import DeviceError, FerrumError, InvalidFormat, InvalidParameter, NotFound, ResourceExhausted
from ferrum.kv.eviction import make_policy
from ferrum.kv.manager import KvManager
from ferrum.kv.pool import BlockPool
from ferrum.kv.prefix_file import _digest, load_prefix, save_prefix
from ferrum.kv.storage import KvStorage
from ferrum.testing.audit import audit
from tests.kv.oracles import codes, compute, digests_of, held_by, known, make_manager, remember, serve
from tests.tiny import tiny_config

TEXT = [0, 1, 1, 0, 1, 0, 0, 1]
Metadata = dict[str, str]


# ---- there and back
@pytest.mark.clause("KV-35")
@given(size=st.integers(1, 4), text=st.lists(st.integers(0, 1), min_size=1, max_size=14), longer=st.booleans())
def test_what_was_saved_is_found_as_if_it_had_been_computed_here(
    size: int, text: list[int], longer: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, full = tmp_path_factory.getbasetemp() / "prefix.safetensors", len(text) // size * size
    manager, store = make_manager(40, size)
    remember(manager, store, text)
    if not full:
        with pytest.raises(ResourceExhausted, match="generate from it first"):
            save_prefix(manager, manager.root, text, path)
        return
    assert save_prefix(manager, manager.root, [*text, 1, 1] if longer else text, path) in (full, full + size)
    assert manager.device.held == 0
    fresh, memory = make_manager(40, size)
    assert load_prefix(fresh, fresh.root, str(path)) == full
    assert (fresh.device.held, fresh.device.cached) == (0, full // size)
    table = fresh.new_table()
    assert fresh.open(table, text) == full
    assert held_by(memory, table, full) == codes(text, 0, full)
    compute(fresh, memory, table, [*text, 0, 1], min(full, len(text) - 1))
    assert held_by(memory, table, len(text) + 2) == codes([*text, 0, 1])
    audit(fresh, [table])


def manager_of(backend: str, dtype: str, blocks: int = 4, root: bytes = b"root") -> KvManager:
    ops = NumpyOps("float64") if backend == "numpy64" else load_backend(backend)
    storage = KvStorage(ops, tiny_config(kv_heads=2, head_dim=2), blocks, 4, dtype)
    return KvManager(storage, BlockPool(blocks, make_policy("lru")), None, 4, root=root)


def fill(manager: KvManager, text: list[int]) -> dict[str, Any]:
    """Caches random contents for a text."""
    table, random = manager.new_table(), np.random.default_rng(1)
    manager.reserve(table, 0, len(text))
    contents = manager.store.read(table.blocks)
    contents = {name: random.standard_normal(array.shape).astype(array.dtype) for name, array in contents.items()}
    manager.store.write(table.blocks, contents)
    manager.record(table, text, len(text))
    manager.close(table)
    return contents


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("numpy", "float32"), ("numpy", "float16"), ("numpy64", "float64"), ("numba", "float32"), ("numba", "float16")],
)
def test_real_arrays_come_back_bit_by_bit(tmp_path: Path, backend: str, dtype: str) -> None:
    path = tmp_path / "prefix"
    contents = fill(manager_of(backend, dtype), TEXT)
    manager = manager_of(backend, dtype)
    fill(manager, TEXT)
    assert save_prefix(manager, manager.root, TEXT, path) == 8
    fresh = manager_of(backend, dtype)
    assert load_prefix(fresh, fresh.root, path) == 8
    table = fresh.new_table()
    assert fresh.open(table, TEXT) == 8
    read = fresh.store.read(table.blocks)
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: array.tobytes() for name, array in contents.items()
    }


@pytest.mark.clause("KV-24", "KV-35")
def test_a_prefix_on_the_host_can_be_saved_too(tmp_path: Path) -> None:
    manager, store = make_manager(2, 4, 2)
    remember(manager, store, TEXT)
    remember(manager, store, [1] * 8)
    assert known(manager, TEXT) == ["host"] * 2
    store.faults.arm({1})
    with pytest.raises(ResourceExhausted):  # it could not be brought to the device
        save_prefix(manager, manager.root, TEXT, tmp_path / "prefix")
    store.faults.arm(set())
    assert save_prefix(manager, manager.root, TEXT, tmp_path / "prefix") == 8
    assert [tier.held for tier in manager.usage()] == [0, 0]
    fresh, memory = make_manager(2, 4)
    load_prefix(fresh, fresh.root, tmp_path / "prefix")
    assert held_by(memory, serve(fresh, memory, TEXT[:7]), 7) == codes(TEXT[:7])


@pytest.mark.clause("KV-33", "KV-35")
def test_what_is_there_already_stays_where_it_is(tmp_path: Path) -> None:
    manager, store = make_manager(6, 4)
    remember(manager, store, TEXT)
    save_prefix(manager, manager.root, TEXT, tmp_path / "prefix")
    fresh, memory = make_manager(6, 4)
    table = serve(fresh, memory, TEXT[:5])
    assert load_prefix(fresh, fresh.root, tmp_path / "prefix") == 8
    assert digests_of(fresh.device)[fresh.find(table, TEXT)[0].digest] == table.blocks[0]
    assert (fresh.device.held, fresh.device.cached, fresh.device.free) == (2, 1, 3)
    audit(fresh, [table])


@pytest.mark.clause("KV-19", "KV-35")
def test_a_file_that_cannot_be_written_leaves_nothing_held(tmp_path: Path) -> None:
    manager, store = make_manager(4, 4)
    remember(manager, store, TEXT)
    (tmp_path / "file").touch()
    for path, error in [
        (tmp_path / "missing" / "prefix", NotFound),
        (tmp_path / "file" / "prefix", NotFound),
        (str(tmp_path / "missing" / "prefix"), NotFound),
        (tmp_path, InvalidParameter),
        (tmp_path / ("long" * 100), InvalidParameter),
    ]:
        with pytest.raises(error, match=str(path if error is InvalidParameter else Path(path).parent)):
            save_prefix(manager, manager.root, TEXT, path)
    assert manager.device.held == 0
    assert known(manager, TEXT) == ["device"] * 2


# ---- refused
def saved(tmp_path: Path) -> Path:
    manager = manager_of("numpy", "float32")
    fill(manager, TEXT)
    save_prefix(manager, manager.root, TEXT, tmp_path / "prefix")
    return tmp_path / "prefix"


def refuse(manager: KvManager, path: Path, error: type[FerrumError], match: str | None = None) -> None:
    """Checks that loading the file raises the error, and that the manager is as before."""
    with pytest.raises(error, match=match):
        load_prefix(manager, manager.root, path)
    assert manager.device.held == manager.device.cached == 0
    assert manager.find(manager.new_table(), TEXT) == []


def rewrite(path: Path, change: Callable[[dict[str, Any], Metadata], None]) -> None:
    """Changes the arrays and the metadata of a file in place."""
    with safe_open(path, "numpy") as file:
        metadata, contents = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(contents, metadata)
    save_file(contents, path, metadata)


@pytest.mark.clause("KV-35")
def test_a_file_of_another_root_or_block_size_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    refuse(manager_of("numpy", "float32", root=b"other"), path, InvalidFormat, "another model")
    refuse(manager_of("numpy", "float32", root=b""), path, InvalidFormat, "another model")
    three, _ = make_manager(8, 3)
    refuse(three, path, InvalidFormat, "blocks of 3 tokens")
    two, _ = make_manager(8, 2)  # the tokens fill whole blocks, but not as many as there are in the file
    refuse(two, path, InvalidFormat)
    assert load_prefix(manager_of("numpy", "float32"), b"root", path) == 8


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    refuse(manager_of("numpy", "float32"), path, InvalidFormat, "is not a saved prefix")


@pytest.mark.clause("KV-35")
def test_what_is_no_prefix_at_all_is_refused(tmp_path: Path) -> None:
    manager = manager_of("numpy", "float32")
    refuse(manager, tmp_path / "missing", NotFound, "does not exist")
    refuse(manager, tmp_path, InvalidFormat, "not a regular file")  # a folder
    (tmp_path / "text").write_text("a text")
    refuse(manager, tmp_path / "text", InvalidFormat)
    (tmp_path / "long").write_text("a longer text that could be a header " * 100)
    refuse(manager, tmp_path / "long", InvalidFormat)
    save_file({"weight": np.zeros(3)}, tmp_path / "model")  # a safetensors file without metadata
    refuse(manager, tmp_path / "model", InvalidFormat)


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize(
    "change",
    [
        lambda contents: contents.pop("layer.1.values"),
        lambda contents: contents.update({"layer.0.keys": contents["layer.0.keys"][:1].copy()}),
        lambda contents: contents.update({"layer.0.keys": contents["layer.0.keys"][..., :2].copy()}),
        lambda contents: contents.update({"layer.1.values": np.zeros((), np.float32)}),
        lambda contents: contents.update({"layer.1.values": np.zeros((3, 2, 4, 2), np.float32)}),
    ],
)
def test_contents_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = saved(tmp_path)
    rewrite(path, lambda contents, _: change(contents))
    refuse(manager_of("numpy", "float32"), path, InvalidFormat)


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize(
    "changed",
    [
        {"format": "ferrum-prefix-1"},
        {"root": "00"},
        {"root": ""},
        {"token_ids": json.dumps(TEXT[:4])},
        {"token_ids": json.dumps(TEXT[:7])},
        {"token_ids": json.dumps([*TEXT, *TEXT])},
        {"token_ids": "[]"},
        {"token_ids": "null"},
        {"token_ids": "8"},
        {"token_ids": "[0, 1"},
        {"token_ids": '["0", "1", "1", "0"]'},
        {"token_ids": '"0110"'},
        {"token_ids": "[0, 1, 1, 0, 1, 0, 0, 1.5]"},
        {"token_ids": "[0, 1, 1, 0, 1, 0, 0, 1e999]"},
        {"token_ids": json.dumps([*TEXT[:7], 2**70])},
        {"token_ids": "[" * 100_000},
    ],
)
def test_metadata_that_was_tampered_with_is_refused(tmp_path: Path, changed: Metadata) -> None:
    path = saved(tmp_path)
    rewrite(path, lambda _, metadata: metadata.update(changed))
    refuse(manager_of("numpy", "float32"), path, InvalidFormat, f"^{path} (is|was) ")


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize("name", ["format", "root", "token_ids", "digest"])
def test_metadata_that_is_missing_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path)
    rewrite(path, lambda _, metadata: metadata.pop(name) and None)
    refuse(manager_of("numpy", "float32"), path, InvalidFormat)


@pytest.mark.clause("KV-35")
def test_a_prefix_of_nothing_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)

    def empty(contents: dict[str, Any], metadata: Metadata) -> None:
        metadata["token_ids"] = "[]"
        contents.update({name: array[:0].copy() for name, array in contents.items()})

    rewrite(path, empty)
    refuse(manager_of("numpy", "float32"), path, InvalidFormat)


@pytest.mark.clause("KV-18", "KV-35")
def test_a_prefix_needs_room(tmp_path: Path) -> None:
    path = saved(tmp_path)
    refuse(manager_of("numpy", "float32", blocks=1), path, ResourceExhausted)
    manager = manager_of("numpy", "float32", blocks=3)
    holder = manager.new_table()
    manager.reserve(holder, 0, 8)
    with pytest.raises(ResourceExhausted):
        load_prefix(manager, manager.root, path)
    audit(manager, [holder])
    manager.close(holder)
    fill(manager, [1] * 12)  # evicts what is cached
    assert load_prefix(manager, manager.root, path) == 8
    assert known(manager, TEXT) == ["device"] * 2


@pytest.mark.clause("KV-18", "KV-35")
def test_a_device_that_fails_while_it_is_written_to_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, manager = saved(tmp_path), manager_of("numpy", "float32")

    def fail(*_: object) -> None:
        raise DeviceError("gone")

    monkeypatch.setattr(manager.store, "write", fail)
    refuse(manager, path, DeviceError)


# ---- damage
def resealed(contents: dict[str, Any], metadata: Metadata) -> None:
    """Computes the digest of the changed contents, so that the file is refused for another reason than its digest."""
    metadata["digest"] = _digest(json.loads(metadata["token_ids"]), contents)


@pytest.mark.clause("KV-35")
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_more_or_fewer_blocks_than_the_tokens_fill_are_refused(tmp_path: Path, blocks: int) -> None:
    path = saved(tmp_path)

    def resize(contents: dict[str, Any], metadata: Metadata) -> None:
        contents.update({name: np.resize(array, (blocks, *array.shape[1:])) for name, array in contents.items()})
        resealed(contents, metadata)

    rewrite(path, resize)
    refuse(manager_of("numpy", "float32"), path, InvalidFormat)


@pytest.mark.clause("KV-43")
def test_one_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole, random = path.read_bytes(), np.random.default_rng(3)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*random.integers(0, header, 60), *random.integers(header, len(whole), 60), header, len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        if damaged[:header].replace(b" ", b"") == whole[:header].replace(b" ", b""):
            refuse(manager_of("numpy", "float32"), path, InvalidFormat, "damaged")
        else:  # or a header that is no header any more
            refuse(manager_of("numpy", "float32"), path, InvalidFormat)
    path.write_bytes(whole[:header] + bytes(len(whole) - header))  # as after a loss of power
    refuse(manager_of("numpy", "float32"), path, InvalidFormat, "damaged")
    path.write_bytes(whole)
    assert load_prefix(manager_of("numpy", "float32"), b"root", path) == 8


@pytest.mark.clause("KV-43")
@pytest.mark.parametrize(
    "change",
    [
        lambda contents, _: contents.update({name: array * 2 for name, array in contents.items()}),
        lambda contents, _: contents.update({name: array[::-1].copy() for name, array in contents.items()}),
        lambda contents, _: contents.update(zip(list(contents), list(contents.values())[::-1], strict=True)),
        lambda contents, _: contents.update(extra=np.zeros(1, np.float32)),
        lambda contents, _: [contents.pop("layer.0.keys")].clear(),
        lambda _, metadata: metadata.update(token_ids=json.dumps([1 - token for token in TEXT])),
        lambda _, metadata: metadata.update(digest="0" * 32),
    ],
    ids=["values", "blocks", "layers", "one more", "one less", "tokens", "digest"],
)
def test_other_contents_under_the_same_digest_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any], Metadata], None]
) -> None:
    path = saved(tmp_path)
    rewrite(path, change)
    refuse(manager_of("numpy", "float32"), path, InvalidFormat, "damaged")


@pytest.mark.clause("KV-43")
@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.float64, np.float16, np.int8, np.bool_])
def test_another_element_type_is_refused_even_with_its_digest(tmp_path: Path, kind: Any) -> None:
    path = saved(tmp_path)

    def change(contents: dict[str, Any], metadata: Metadata) -> None:
        contents.update({name: array.astype(kind) for name, array in contents.items()})
        resealed(contents, metadata)

    rewrite(path, change)
    refuse(manager_of("numpy", "float32"), path, InvalidFormat, "layer.0.keys is ")


@pytest.mark.clause("KV-43")
@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "BF16", "C64", "I64", "X"])
def test_element_types_that_numpy_does_not_have_are_refused(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', f'"dtype":"{kind}"'.encode()))
    refuse(manager_of("numpy", "float32"), path, InvalidFormat)


@pytest.mark.clause("KV-43", "FILES-02")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_written_in_full_leaves_the_older_one(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    manager = manager_of("numpy", "float32")
    fill(manager, TEXT)

    def full(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises((InvalidParameter, KeyboardInterrupt)):
        patch.setattr("os.fsync", full)
        save_prefix(manager, b"root", TEXT, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert load_prefix(manager_of("numpy", "float32"), b"root", path) == 8


@pytest.mark.clause("KV-35", "FILES-01")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "a\0b", tmp_path / ("x" * 300)):
        refuse(manager_of("numpy", "float32"), path, InvalidFormat)
    manager = manager_of("numpy", "float32")
    fill(manager, TEXT)
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(InvalidParameter, match=r"cannot be written: .*\w") as caught:
            save_prefix(manager, b"root", TEXT, path)
        assert caught.value.field == "path" and str(path) in str(caught.value)
        assert "None" not in str(caught.value)
