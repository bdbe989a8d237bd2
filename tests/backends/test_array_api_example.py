"""The example backend of another package passes the conformance suite and generates the tokens of the oracle."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.registry import load_backend
from ferrum.conformance import plugin
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ferrum-array-api"


def backend(name: str, *modules: str) -> object:
    """A parameter of a test, skipped if the modules of this backend are not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    return pytest.param(f"ferrum_array_api:{name}", id=name, marks=skip)


backends = pytest.mark.parametrize(
    "name", [backend("ArrayApiOps", "array_api_strict"), backend("TorchOps", "array_api_compat", "torch")]
)


@backends
@pytest.mark.clause("OPS-01")
def test_the_example_passes_the_suite(name: str, tmp_path: Path) -> None:
    # -p stands in for the plugin's registration, which a source tree that is not installed does not have
    command = ["-m", "pytest", "-q", "--pyargs", "ferrum.conformance", "-p", plugin.NAME, "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT), str(EXAMPLE)])
    ran = subprocess.run(
        [sys.executable, *command, "--backend", name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "HYPOTHESIS_PROFILE": "few"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


@backends
@pytest.mark.clause("OPS-01")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_example_generates_what_the_oracle_does(
    name: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    config = tiny_config()
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=12, ignore_eos=True)
    answers = []
    for each in (name, "numpy"):
        llm = LLM.from_loaded(TinyModel(config, tiny_params(config), ByteTokenizer()), load_backend(each))
        answers.append([completion.token_ids for completion in llm.generate(["The sea is", "Once"], params)])
    assert answers[0] == answers[1]
