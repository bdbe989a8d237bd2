"""CLI-20, CLI-21, CLI-23: the program as a whole."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields

import pytest
from click.testing import CliRunner

import ferrum
from ferrum.cli.main import program
from ferrum.cli.options import EngineOptions
from ferrum.cli.terminal import Progress
from ferrum.engine.llm import LLM
from tests.cli.conftest import Invoke, run


@pytest.mark.clause("CLI-20")
def test_engine_flags_are_parameters_of_llm_with_the_same_defaults() -> None:
    parameters = inspect.signature(LLM.__init__).parameters
    flags = program.commands["generate"].make_context("generate", ["Hi"]).params
    for field in fields(EngineOptions):
        default = flags[field.name]
        assert field.name in parameters
        if parameters[field.name].default is not None:
            assert default == parameters[field.name].default, field.name


@pytest.mark.clause("CLI-20")
def test_engine_flags_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, object] = {}

    def listen(_llm: LLM, **values: object) -> None:
        heard.update(values)
        raise ferrum.errors.Cancelled("heard")

    monkeypatch.setattr(LLM, "__init__", listen)
    flags = "-m a --backend b --dtype c --compute d -t 3 --max-model-len 4 --block-size 5 --kv-memory 6MiB --offline"
    flags += " --host-kv-memory 7MiB --scheduler e --eviction f --no-prefix-caching --deterministic"
    flags += " --kv-dtype g --gpu-memory-utilization 0.8 --speculate ngram:8 --draft-model h"
    result = CliRunner().invoke(program, ["generate", "Hi", *flags.split()])
    assert result.stderr == "error: heard\n"
    del heard["progress"]
    assert heard == {
        "model": "a", "backend": "b", "dtype": "c", "compute": "d", "threads": 3, "max_model_len": 4, "block_size": 5,
        "kv_memory": "6MiB", "host_kv_memory": "7MiB", "scheduler": "e", "eviction": "f", "prefix_caching": False,
        "deterministic": True, "offline": True, "kv_dtype": "g", "gpu_memory_utilization": 0.8,
        "speculate": "ngram:8", "draft_model": "h",
    }  # fmt: skip


@pytest.mark.clause("CLI-21")
@pytest.mark.parametrize("name", [None, *program.commands])
def test_help_explains_every_flag(invoke: Invoke, name: str | None) -> None:
    result = invoke(*([name] if name else []), "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    options = program.commands[name].params if name else []
    assert all(option.help for option in options if option.param_type_name == "option")


@pytest.mark.clause("CLI-21")
def test_commands_are_those_there_are() -> None:
    names = "generate chat pull models inspect tokenize bench serve batch spec conformance trace"
    assert list(program.commands) == names.split()


@pytest.mark.clause("CLI-23")
def test_the_module_runs_and_knows_its_version() -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"ferrum-ref, version {ferrum.__version__}\n", "")


@pytest.mark.clause("CLI-21")
def test_the_bare_program_shows_its_help_as_it_is() -> None:
    ran = run()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == run("--help").stdout


@pytest.mark.clause("CLI-05")
def test_a_closed_stderr_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Progress().during("loading x"):
        pass
    assert Progress().download("x") is None
