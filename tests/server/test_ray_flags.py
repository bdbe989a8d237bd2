"""BATCH-40, BATCH-44, SERVER-84: the flags of several machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ferrum.cli import service_flags
from ferrum.cli.main import program
from ferrum.cli.options import EngineOptions
from ferrum.cli.service_flags import ServiceFlags


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("stub.json", "in.jsonl"):
        (tmp_path / name).write_text("{}")


COMMANDS = [["serve", "--stub", "stub.json"], ["batch", "in.jsonl", "-o", "out.jsonl", "--stub", "stub.json"]]


@pytest.mark.clause("BATCH-40")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_several_machines_need_ray(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_flags, "find_spec", lambda _: None)
    ran = CliRunner().invoke(program, [*command, "--ray"])
    assert (ran.exit_code, ran.stderr) == (1, "error: several machines need Ray: pip install 'ferrum-ref[ray]'\n")
    for flag, value in (("--replicas", "2"), ("--address", "auto")):
        ran = CliRunner().invoke(program, [*command, flag, value])
        assert ran.exit_code == 2 and ran.stderr.startswith(f"error: {flag}: ") and "needs --ray" in ran.stderr


@pytest.mark.clause("SERVER-84")
@pytest.mark.parametrize(
    ("flag", "value"),
    [("--client-timeout", "5"), ("--max-header-size", "1MiB"), ("--max-connections", "9"), ("--port", "0")],
)
def test_what_is_up_to_ray_cannot_be_set(flag: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_flags, "find_spec", lambda _: object())
    ran = CliRunner().invoke(program, ["serve", "--stub", "stub.json", "--ray", flag, value])
    assert ran.exit_code == 2 and ran.stderr.startswith(f"error: {flag}: ")


@pytest.mark.clause("SERVER-73")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("more", [[], ["--ray"]], ids=str)
def test_a_model_beside_a_script_is_refused(
    command: list[str], more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_flags, "find_spec", lambda _: object())
    ran = CliRunner().invoke(program, [*command, *more, "-m", "x"])
    assert ran.exit_code == 2 and ran.stderr.startswith("error: --stub: ")


@pytest.mark.clause("BATCH-44")
@pytest.mark.parametrize("second", [None, "in.jsonl", "org/name"])
def test_files_of_replicas_have_full_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str | None) -> None:
    made: list[tuple[ServiceFlags, EngineOptions]] = []
    monkeypatch.setattr(ServiceFlags, "service", lambda self, engine, _: made.append((self, engine)))
    flags = ServiceFlags(("m",), 1, 1, 1, "auto", "auto", Path("in.jsonl"), "auto", Path("stub.json"))
    engine = EngineOptions(
        "stub.json", "auto", "auto", "float32", None, None, 16, "1GiB", "0", "fifo", "lru", True, False, False,
        draft_model=second,
    )  # fmt: skip
    service_flags.replica_maker(flags, engine)()
    ((own, found),) = made
    assert (own.chat_template, own.stub) == (tmp_path / "in.jsonl", tmp_path / "stub.json")
    assert found.model == str(tmp_path / "stub.json")
    assert found.draft_model == (str(tmp_path / "in.jsonl") if second == "in.jsonl" else second)
