"""Names of models: paths, aliases, hub ids, and the errors for other names."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import ConfigError, FerrumError, InvalidParameter, NotFound
from ferrum.load import packaged, resolve
from ferrum.load.packaged import SMOLLM2
from ferrum.load.resolve import Location, list_models
from tests.load.odd_files import make_odd


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No model on this machine, and no package of one."""
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "PathFinder", SimpleNamespace(find_spec=lambda *_: None))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that notes what it is asked for."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repo: str, **options: Any) -> str:
        calls.append({"repo": repo, **options})
        return f"/snapshots/{repo}"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return calls


@pytest.mark.clause("LOAD-70")
def test_an_existing_path_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("org/name", SMOLLM2.alias):
        (tmp_path / name).mkdir(parents=True)
        assert resolve.resolve(name) == Location(Path(name).name, Path(name))
    (tmp_path / "tiny.gguf").write_bytes(b"")
    for spelling in ("tiny.gguf", "./tiny.gguf", tmp_path / "tiny.gguf"):
        assert resolve.resolve(spelling).name == "tiny"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve.resolve("~/tiny.gguf").path == tmp_path / "tiny.gguf"
    assert hub == []


@pytest.mark.clause("LOAD-70")
@pytest.mark.parametrize("name", [SMOLLM2.alias, SMOLLM2.alias.upper()])
def test_an_alias_is_found_in_the_cache(empty_caches: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    empty_caches.mkdir()
    path = empty_caches / SMOLLM2.file_name
    with open(path, "wb") as file:
        file.truncate(SMOLLM2.member_bytes)
    assert resolve.resolve(name, offline=True) == Location(SMOLLM2.alias, path)


@pytest.mark.clause("LOAD-71")
@pytest.mark.parametrize("name", ["smollm2", "smolm2-135m-instruct", "SmolLM2-135M", "smollm2-360m-instruct"])
def test_a_typing_error_gets_the_nearest_alias(name: str) -> None:
    with pytest.raises(NotFound, match=f"there is no model '{name}'; did you mean {SMOLLM2.alias}"):
        resolve.resolve(name)


@pytest.mark.clause("LOAD-71")
@pytest.mark.parametrize("name", ["gpt", "x y", "org/name@", "org/na me", "@"])
def test_an_unknown_name_gets_the_list_of_aliases(name: str) -> None:
    with pytest.raises(NotFound, match=f"there is no model .*; known by name: {SMOLLM2.alias}"):
        resolve.resolve(name)


@pytest.mark.clause("LOAD-72")
@pytest.mark.parametrize(
    "name", ["/no/such", "./model", "../model", "~/model", "a/b/c", "model.gguf", "org/x.gguf", "dir/", "a\\b"]
)
def test_what_looks_like_a_path_is_not_looked_for_elsewhere(name: str, hub: list[dict[str, Any]]) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        resolve.resolve(name)
    with pytest.raises(NotFound, match="does not exist"):
        resolve.resolve(Path(name))
    assert hub == []


ODD_NAMES = [
    "a\0b", "/a\0b", "~\0", "./\0.gguf", "\ud800", "/\ud800.gguf", "~\ud800/x", "a" * 300, "/" + "a" * 300,
    "a" * 100_000,
    "/a" * 100_000, "\x1b[31mred", "./\x1b[2J\n", "a\nb", "\r", "\u202e.gguf", "org/" + "n" * 300, "org/name\n",
]  # fmt: skip


@pytest.mark.clause("LOAD-79")
@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_names_that_no_model_has_are_one_printable_sentence(name: str, hub: list[dict[str, Any]]) -> None:
    for spelling in (name, Path(name)):
        try:
            resolve.resolve(spelling, offline=True)
        except NotFound as error:
            assert str(error).isprintable() and len(str(error)) < 500
        else:  # it has the form of a hub id, and is for the hub to judge
            assert hub[0]["repo"] == name


@pytest.mark.clause("LOAD-79")
@pytest.mark.parametrize("name", [None, 5, 1.5, ["a"], {}, object()])
def test_what_is_no_name_is_an_invalid_parameter(name: Any) -> None:
    with pytest.raises(InvalidParameter, match="model must be a name or a path, not"):
        resolve.resolve(name)


@pytest.mark.clause("LOAD-79")
@pytest.mark.parametrize("spelling", ["model.gguf", SMOLLM2.alias, "org/name"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("pipe", "is neither a file nor a directory"),
        ("socket", "is neither a file nor a directory"),
        ("device", "is neither a file nor a directory"),
        ("dangling", "is a link that leads nowhere"),
        ("circular", "is a link that leads nowhere"),
    ],
)
def test_what_is_neither_file_nor_directory_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[dict[str, Any]], spelling: str, kind: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(spelling)
    path.parent.mkdir(exist_ok=True)
    make_odd(path, kind)
    with pytest.raises(NotFound, match=f"{spelling} {says}"):
        resolve.resolve(spelling, offline=True)
    assert hub == []


@pytest.mark.clause("LOAD-79")
def test_a_path_that_may_not_be_looked_at_is_said_so_and_an_alias_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: object, **_: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(resolve.os, "stat", stat)
        with pytest.raises(NotFound, match=r"\./model cannot be read: Permission denied"):
            resolve.resolve("./model")
        with pytest.raises(NotFound, match="is not on this machine"):
            resolve.resolve(SMOLLM2.alias, offline=True)


@pytest.mark.clause("LOAD-72")
@given(name=st.text(max_size=12).filter(lambda name: "/" not in name))
def test_any_other_text_is_a_place_or_an_error(name: str) -> None:
    with contextlib.suppress(FerrumError):
        assert resolve.resolve(name, offline=True).path.exists()


@pytest.mark.clause("LOAD-73")
def test_a_hub_id_fetches_weights_and_text_files_only(hub: list[dict[str, Any]]) -> None:
    assert resolve.resolve("org/name") == Location("org/name", Path("/snapshots/org/name"))
    assert resolve.resolve("org/name.v2@refs/pr/1", offline=True).name == "org/name.v2@refs/pr/1"
    assert [(call["repo"], call["revision"], call["local_files_only"]) for call in hub] == [
        ("org/name", None, False),
        ("org/name.v2", "refs/pr/1", True),
    ]
    assert len(hub) == 2


REPOSITORY = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "merges.txt",
    "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "model.safetensors",
    "model-00001-of-00003.safetensors", "model.safetensors.index.json", "consolidated.safetensors",
    "consolidated-00001-of-00002.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "modeling.py",
    "original/consolidated.00.pth", "original/params.json", "onnx/model.safetensors", "onnx/tokenizer.json",
    "adapter_model.safetensors", "README.md",
]  # fmt: skip


@pytest.mark.clause("LOAD-73")
def test_weights_are_fetched_once_and_programs_never(hub: list[dict[str, Any]]) -> None:
    from huggingface_hub.utils import filter_repo_objects

    resolve.resolve("org/name")
    patterns = {key: hub[0][key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(REPOSITORY, **patterns)) == [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "model.safetensors",
        "model-00001-of-00003.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip


@pytest.mark.clause("LOAD-73")
def test_shards_that_are_not_called_as_usual_are_fetched_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[dict[str, Any]]
) -> None:
    def snapshot_download(repo: str, **options: Any) -> str:
        hub.append(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    index = tmp_path / "model.safetensors.index.json"
    names = ["a-1.safetensors", "a-2.safetensors", "../x.safetensors", "*.safetensors", "weights.bin", 3]
    index.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
    resolve.resolve("org/name")
    assert [call["allow_patterns"] for call in hub[1:]] == [["a-1.safetensors", "a-2.safetensors"]]
    (tmp_path / "a-1.safetensors").write_bytes(b"")
    resolve.resolve("org/name")
    assert hub[-1]["allow_patterns"] == ["a-2.safetensors"]
    calls = len(hub)
    resolve.resolve("org/name", offline=True)
    for text in ("", "{", '{"weight_map": 3}', "{}"):
        index.write_text(text)
        resolve.resolve("org/name")
    index.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    resolve.resolve("org/name")
    assert len(hub) == calls + 6


@pytest.mark.clause("LOAD-73")
@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_hubs_own_offline_switch_applies(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, value: str, offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    resolve.resolve("org/name")
    assert hub[0]["local_files_only"] is offline


@pytest.mark.clause("LOAD-73")
@pytest.mark.parametrize("quiet", [True, False])
def test_the_hubs_progress_bars_are_silenced_unless_wanted(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    enable_progress_bars()
    seen: list[bool] = []

    def snapshot_download(repo: str, **options: Any) -> str:
        seen.append(are_progress_bars_disabled())
        raise OSError("stop here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(NotFound):
        resolve.resolve("org/name", progress=None if quiet else lambda done, total: None)
    assert seen == [quiet]
    assert not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with pytest.raises(NotFound):
            resolve.resolve("org/name")
        assert are_progress_bars_disabled()  # by another library
    finally:
        enable_progress_bars()


@pytest.mark.clause("LOAD-73")
@pytest.mark.parametrize(
    ("error", "offline", "says"),
    [
        (OSError("401 Client Error\nlong story"), False, "hub: 401 Client Error$"),
        (RuntimeError(), False, "hub: RuntimeError$"),
        (FileNotFoundError("not in cache"), True, "not complete in the local cache, and offline mode is on$"),
    ],
)
def test_a_failed_fetch_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, offline: bool, says: str
) -> None:
    def snapshot_download(repo: str, **options: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(NotFound, match=says):
        resolve.resolve("org/name", offline=offline)


@pytest.mark.clause("LOAD-74")
def test_models_are_listed_with_place_and_size(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(model.name, model.path, model.nbytes) for model in list_models()] == [(SMOLLM2.alias, None, None)]
    empty_caches.mkdir()
    path = empty_caches / SMOLLM2.file_name
    with open(path, "wb") as file:
        file.truncate(SMOLLM2.member_bytes)
    other = empty_caches / "other.gguf"
    other.write_bytes(b"12345")
    repository = empty_caches.parent / "hub" / "models--org--name"
    for folder in (repository, repository.with_name("datasets--org--data")):
        for part in ("blobs", "snapshots/0123"):
            (folder / part).mkdir(parents=True)
        (folder / "blobs" / "abc").write_bytes(b"1234567")
        (folder / "snapshots" / "0123" / "config.json").symlink_to("../../blobs/abc")
    (repository.with_name("models--org--empty") / "snapshots").mkdir(parents=True)
    (repository.with_name("models--org--none")).mkdir()
    (repository.with_name(".locks")).mkdir()
    expected = [
        (SMOLLM2.alias, path, SMOLLM2.member_bytes),
        (str(other), other, 5),
        ("org/name", repository, 7),
    ]
    assert [(model.name, model.path, model.nbytes) for model in list_models()] == expected
    (repository / "snapshots" / "0123" / "README.md").symlink_to("../../blobs/gone")  # a file that is not needed
    assert [(model.name, model.path, model.nbytes) for model in list_models()] == expected


@pytest.mark.clause("LOAD-74")
@pytest.mark.parametrize("kind", ["pipe", "device", "dangling", "circular", "directory"])
def test_what_is_no_file_is_not_listed(empty_caches: Path, kind: str) -> None:
    empty_caches.mkdir()
    make_odd(empty_caches / "odd.gguf", kind)
    make_odd(empty_caches / SMOLLM2.file_name, kind)
    assert [(model.name, model.path) for model in list_models()] == [(SMOLLM2.alias, None)]


@pytest.mark.clause("LOAD-74")
def test_without_a_home_there_is_still_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRUM_CACHE", "~nobody_has_this_name/cache")
    assert [(model.name, model.path) for model in list_models()] == [(SMOLLM2.alias, None)]
    with pytest.raises(NotFound, match="is not on this machine"):
        resolve.resolve(SMOLLM2.alias, offline=True)
    with pytest.raises(ConfigError, match="Set FERRUM_CACHE"):
        resolve.resolve(SMOLLM2.alias)


@pytest.mark.clause("LOAD-74")
@pytest.mark.parametrize("kind", ["none", "pipe", "file", "dangling", "circular"])
def test_listing_without_a_hub_cache_is_no_error(empty_caches: Path, kind: str) -> None:
    place = empty_caches.parent / "hub"
    if kind == "file":
        place.write_bytes(b"")
    elif kind != "none":
        make_odd(place, kind)
    assert len(list_models()) == 1
