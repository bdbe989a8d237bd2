"""CLI-54 to CLI-56: the flags that become sampling parameters, and the log probabilities that are printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ferrum.cli.logprobs import as_list, logprob_lines
from ferrum.cli.options import sampling_options
from ferrum.sampling_params import NUMBERS, PRESETS, SamplingParams, StructuredOutputs
from ferrum.types import Logprob
from tests.cli.conftest import Invoke, byte_tokenizer
from tests.sample.declared import examples


def params_of(*arguments: str) -> SamplingParams:
    """The sampling parameters for these flags."""
    found: list[SamplingParams] = []

    @click.command()
    @sampling_options
    def command(params: SamplingParams) -> None:
        found.append(params)

    result = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return found[0]


BY_FIELD: dict[str, tuple[list[str], Any]] = {
    **{
        name: ([f"--{name.replace('_', '-')}", str(examples(name)[0])], examples(name)[0])
        for name in NUMBERS
        if name != "n"
    },
    "max_tokens": (["-n", "7"], 7),
    "temperature": (["--temp", "0.5"], 0.5),
    "logit_bias": (["--logit-bias", "198=-5", "--logit-bias", "3=1.5"], {198: -5.0, 3: 1.5}),
    "seed": (["--seed", "0"], 0),
    "stop": (["--stop", "a", "--stop", "b"], ("a", "b")),
    "stop_token_ids": (["--stop-token-id", "4", "--stop-token-ids", "5"], (4, 5)),
    "include_stop_str_in_output": (["--include-stop"], True),
    "ignore_eos": (["--ignore-eos"], True),
    "logprobs": (["--logprobs", "2"], 2),
    "structured_outputs": (["--regex", "a+"], StructuredOutputs(regex="a+")),
}
WITHOUT_FLAG = {"n", "skip_special_tokens", "prompt_logprobs", "logprobs_mode", "speculate"}


@pytest.mark.clause("CLI-54")
def test_every_field_has_a_flag_or_is_for_programs() -> None:
    assert {field.name for field in dataclasses.fields(SamplingParams)} == BY_FIELD.keys() | WITHOUT_FLAG


@pytest.mark.clause("CLI-54")
@pytest.mark.parametrize("field", BY_FIELD)
def test_a_flag_sets_its_field_and_no_other(field: str) -> None:
    arguments, value = BY_FIELD[field]
    found = params_of(*arguments)
    assert getattr(found, field) == value
    assert dataclasses.replace(found, **{field: getattr(params_of(), field)}) == params_of()


@pytest.mark.clause("CLI-54")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stands_in_for_what_is_not_given(name: str) -> None:
    rest = {"max_tokens": 512}
    assert params_of("--preset", name) == SamplingParams(**{**rest, **PRESETS[name]})
    assert params_of("--preset", name, "--temperature", "0.8").temperature == 0.8  # the default, but given
    assert params_of("--preset", name, "--top-k", "40").top_k == 40


@pytest.mark.clause("CLI-55")
@pytest.mark.parametrize(("flag", "field"), [("--json-schema", "json"), ("--regex", "regex"), ("--grammar", "grammar")])
def test_structures_as_text_or_file(flag: str, field: str, tmp_path: Path) -> None:
    text = '{"type": "object"}'
    file = tmp_path / "structure"
    file.write_text(text)
    expected = StructuredOutputs(**{field: text})
    for written in (text, text + "\n", "\ufeff" + text, "\ufeff" + text + "\r\n"):  # as editors and `echo` leave it
        file.write_bytes(written.encode())
        assert params_of(flag, f"@{file}").structured_outputs == expected
    assert params_of(flag, text).structured_outputs == expected
    if flag != "--json-schema":
        assert params_of(flag, "@@[a-z]+").structured_outputs == StructuredOutputs(**{field: "@[a-z]+"})


@pytest.mark.clause("CLI-55", "SAMPLE-45")
@pytest.mark.parametrize("flag", ["--one-of-as-any-of", "--strict-formats"])
def test_ways_to_read_schemas(flag: str) -> None:
    ways: dict[str, Any] = {flag[2:].replace("-", "_"): True}
    assert params_of("--json-schema", "{}", flag).structured_outputs == StructuredOutputs(json={}, **ways)
    assert params_of("--grammar", "start: %json {}", flag).structured_outputs == StructuredOutputs(
        grammar="start: %json {}", **ways
    )


@pytest.mark.clause("CLI-55")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--regex", "a", "--grammar", "b"], "only one of"),
        (["--strict-formats"], "--strict-formats is for --json-schema or --grammar"),
        (["--one-of-as-any-of"], "--one-of-as-any-of is for --json-schema or --grammar"),
        (["--strict-formats", "--regex", "a"], "strict_formats is for schemas, and regex is given"),
        (["--json-schema", "@nowhere"], "nowhere cannot be read"),
        (["--json-schema", "{"], "not a JSON schema"),
        (["--logit-bias", "x"], "'x' is not of the form ID=X"),
        (["--logit-bias", "999=1"], "token 999"),
        (["--mirostat", "1"], "mirostat"),
        (["--preset", "wild"], "wild"),
        (["--min-tokens", "9"], "min_tokens"),  # -n is 5
        (["--logit-bias", "1=nan"], "logit_bias must be a number between -100 and 100, not nan"),
        (["--logit-bias", "1=1e999"], "logit_bias must be a number between -100 and 100, not inf"),
        (["--logit-bias", "9" * 5000 + "=1"], "is not of the form ID=X"),
        (["--logit-bias", "-1=1"], "logit_bias must be a whole number of at least 0"),
        (["--temperature", "1e999"], "temperature must be a number"),
        (["--temperature", "nan"], "temperature must be a number"),
        (["--seed", "9" * 5000], "seed"),
        (["--seed", "9" * 400], "seed must be a whole number of at most 1024 bits"),
        (["--top-k", "9" * 30], "top_k must be a whole number of at most"),
        (["-n", "9" * 30], "max_tokens must be a whole number of at most"),
        (["--stop-token-id", "-1"], "stop_token_ids must be a whole number of at least 0"),
        (["--stop-token-id", "999"], "stop_token_ids names token 999"),
        (["--stop", "a" * 20_000], "stop must hold at most 16384 characters"),
        (["--logprobs", "9" * 30], "logprobs must be a whole number of at most"),
        (["--kv-memory", "9" * 400], "kv_memory must be a whole number of at most"),
        (["--kv-memory", "99999999TiB"], "kv_memory must be a whole number of at most"),
        (["--threads", "9" * 30], "threads must be a whole number of at most"),
        (["--regex", "@/dev/zero"], "has more than 1048576 bytes"),
        (["--regex", "@/"], "cannot be read"),
        (["--regex", "@" + "x" * 5000], "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(generate: Invoke, arguments: list[str], complaint: str) -> None:
    result = generate("Hi", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr and result.stdout == ""


@pytest.mark.clause("CLI-56")
def test_logprobs_for_programs(generate: Invoke) -> None:
    said = json.loads(generate("Hi", "--seed", 3, "--json", "--logprobs", 2).stdout)
    assert [entry["token_id"] for entry in said["logprobs"]] == said["token_ids"]
    for entry in said["logprobs"]:
        assert [top["rank"] for top in entry["top"]] == [1, 2]
        assert entry["logprob"] <= entry["top"][0]["logprob"] <= 0
    assert "logprobs" not in json.loads(generate("Hi", "--seed", 3, "--json").stdout)
    assert all(entry["top"] == [] for entry in json.loads(generate("Hi", "--json", "--logprobs", 0).stdout)["logprobs"])


@pytest.mark.clause("CLI-56")
def test_logprobs_for_readers(generate: Invoke) -> None:
    result = generate("Hi", "--seed", 3, "--logprobs", 1)
    assert result.stdout == generate("Hi", "--seed", 3).stdout
    assert result.stderr.count("(rank ") == 5


@pytest.mark.clause("CLI-58")
@pytest.mark.parametrize("text", ["🦜", "日", "é", "a", "\x1b"])
def test_the_bytes_of_half_a_character_are_told(generate: Invoke, text: str) -> None:
    wanted = text.encode()
    letters = byte_tokenizer().encode(text).ids
    assert len(letters) == len(wanted)
    for letter, byte in zip(letters, wanted, strict=True):
        told = json.loads(generate("Hi", "--json", "-n", 1, "--logprobs", 1, "--logit-bias", f"{letter}=100",
                                   "--temperature", 0).stdout)["logprobs"]  # fmt: skip
        assert told[0]["token_id"] == letter and told[0]["bytes"] == [byte]
        assert all(isinstance(top["bytes"], list) for top in told[0]["top"])


@pytest.mark.clause("CLI-56")
def test_minus_infinity_is_a_number_in_json() -> None:
    entry = {5: Logprob(float("-inf"), 3, "e"), 1: Logprob(-0.5, 1, "a"), 2: Logprob(-0.9, 2, "b")}
    spelling = {5: b"e", 1: b"\xf0\x9f", 2: b"b"}.__getitem__
    (found,) = as_list([entry], 2, spelling)
    assert found["logprob"] == -9999.0 and [top["token_id"] for top in found["top"]] == [1, 2]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(as_list([entry], -1, spelling)[0]["top"]) == 3
    (line,) = logprob_lines([entry], spelling)
    assert "-inf" in line and '"e" (rank 3)' in line and '"\\xf0\\x9f" -0.50' in line
