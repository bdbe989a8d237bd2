"""CLI-71: the history of a chat is stored where no other user can read or redirect it, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ferrum.cli.terminal_input import history_file


@pytest.mark.clause("CLI-71", "FILES-04")
def test_the_history_is_kept_in_a_private_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FERRUM_CACHE", str(folder))
    assert history_file() == folder / "chat_history" and folder.stat().st_mode & 0o077 == 0
    (folder / "chat_history").write_text("a line")
    assert history_file() == folder / "chat_history"
    for mode in (0o777, 0o1777, 0o770):
        folder.chmod(mode)
        assert history_file() is None
    folder.chmod(0o700)
    (folder / "chat_history").unlink()
    for plant in (
        lambda path: path.symlink_to(tmp_path / "mine"),
        lambda path: path.symlink_to(tmp_path / "absent"),
        lambda path: os.mkfifo(path, 0o600),
        lambda path: path.mkdir(),
    ):
        plant(folder / "chat_history")
        assert history_file() is None
        planted = folder / "chat_history"
        planted.rmdir() if planted.is_dir() and not planted.is_symlink() else planted.unlink()
    monkeypatch.setenv("FERRUM_CACHE", "~nobody-has-this-name/x")
    assert history_file() is None
