"""SAMPLE-51: code and documents agree with the declaration of each filter and edit."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import Phase, find, settings

from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.sampling import SamplingBody
from ferrum.api.sampling import sampling_params
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.cli.sampling_flags import SAMPLING_FLAGS
from ferrum.errors import InvalidParameter
from ferrum.sample.definition import DEFINITIONS, edits, filter_logits, sample_by_definition
from ferrum.sample.fast import find_candidates
from ferrum.sample.sampler import CHOSEN_BY_BACKEND, Sampled, sample
from ferrum.sampling_params import EDITS, FILTERS, NUMBERS, SamplingParams
from tests.sample import distribution
from tests.sample.declared import examples, refused
from tests.sample.distribution import Past, exact_distribution

OPENAI = {"top_p", "presence_penalty", "frequency_penalty"}
"""Parameters of OpenAI's own API, which the page on serving need not explain."""
ROOT = Path(__file__).parent.parent.parent
OPS = NumpyOps()
ROW = [2.0, 1.6, 1.1, 0.9, 0.3, -0.2, -0.7, -1.1, -1.9, -2.4, -3.3, -4.1, -5.2, -6.4, -7.1]
"""Logits of a distribution in which each filter has something to remove."""
PAST = Past(most_surprise=3.1)


def kept(name: str, value: float) -> tuple[list[int], list[int], list[int]]:
    """The tokens of ROW that a filter leaves, computed by the oracle of the tests, the definition and the fast way."""
    params = SamplingParams(**{name: value})
    state = PAST.state(params)
    filtered = OPS.to_numpy(filter_logits(OPS, np.array([ROW]), [state]))[0]
    candidates = find_candidates(np.array(ROW, np.float32), params, state.most_surprise)
    drawn = [candidates.token(int(index)) for index in np.flatnonzero(candidates.weights)]
    return [*exact_distribution(ROW, params, PAST)], np.flatnonzero(filtered > -np.inf).tolist(), drawn


@pytest.mark.clause("SAMPLE-51", "SAMPLE-12")
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_in_the_oracle_the_definition_and_the_fast_way(name: str) -> None:
    supports = []
    for value in examples(name):
        by_oracle, by_definition, by_fast_way = kept(name, value)
        assert by_oracle == by_definition == by_fast_way
        supports.append(tuple(by_oracle))
    assert min(map(len, supports)) < len(ROW), f"no value of {name} removes a token"
    assert kept(name, FILTERS[name].default) == ([*range(len(ROW))],) * 3


@pytest.mark.clause("SAMPLE-51", "SAMPLE-12")
@pytest.mark.parametrize("name", FILTERS)
def test_a_backend_that_chooses_tokens_does_not_ignore_a_filter(name: str) -> None:
    """A row goes to the backend only if the backend has all of the row's filters."""
    ops = load_backend("numba")
    assert ops.chooses
    rows = np.array([ROW] * 64, np.float32)
    for value in examples(name):
        params = SamplingParams(**{name: value}, temperature=4.0)
        states = [PAST.state(params, seed) for seed in range(len(rows))]
        assert sample(ops, ops.asarray(rows, "float32"), states) == sample(OPS, rows, states)


@pytest.mark.clause("SAMPLE-51", "SAMPLE-12")
@pytest.mark.parametrize("name", [*EDITS, "logit_bias"])
def test_an_edit_that_is_switched_on_alone_changes_the_token(name: str) -> None:
    """The most likely token of ROW is 0, which is in the prompt and in the answer."""
    params = SamplingParams(temperature=0, **{name: {0: -5.0} if name == "logit_bias" else NUMBERS[name].most})
    state = Past(prompt=[0], output=[0]).state(params)
    for ops in (OPS, load_backend("numba")):
        row = np.array([ROW], np.float32)
        assert sample(ops, ops.asarray(row, "float32"), [state]) == [Sampled(1)]
    assert sample_by_definition(OPS, row, [state]).tolist() == [1]


@pytest.mark.clause("SAMPLE-51", "SAMPLE-02")
def test_the_order_of_edits_and_filters_is_that_of_their_fields_and_of_the_specification() -> None:
    assert [*DEFINITIONS] == [*FILTERS]
    steps = [name for name, _ in edits(OPS, np.array([ROW]), [PAST.state(SamplingParams())])]
    assert steps == [*EDITS, "logit_bias", "grammar", "min_tokens"]
    assert FILTERS.keys() >= CHOSEN_BY_BACKEND
    specification = (ROOT / "specs" / "SAMPLE.md").read_text(encoding="utf-8")
    (order,) = re.findall(r"temperature →((?:[\w\s]+→)+) draw", specification)
    assert re.findall(r"\w+", order) == [*FILTERS]


@pytest.mark.clause("SAMPLE-51")
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_drawn_by_the_strategies(name: str) -> None:
    """Each filter is drawn both on and off. Mirostat depends on the past, so only the strategy with a past draws it."""
    quick = settings(max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    strategies = [distribution.full_params(20)] + [distribution.sampling_params] * (name != "mirostat")
    for strategy in strategies:
        assert name in find(strategy, lambda params: name in params.filters, settings=quick).filters
        assert name not in find(strategy, lambda params: name not in params.filters, settings=quick).filters


@pytest.mark.clause("SAMPLE-51", "CLI-54")
@pytest.mark.parametrize("name", [*FILTERS, *EDITS])
def test_every_filter_and_edit_has_a_flag_and_is_described(name: str) -> None:
    command = click.Command("any", params=[])
    for option in SAMPLING_FLAGS:
        option(command)
    flags = {parameter.name: parameter for parameter in command.params}
    flag = flags[name]
    assert isinstance(flag, click.Option)
    assert flag.opts[0] == f"--{name.replace('_', '-')}" and flag.help == NUMBERS[name].help
    pages = ["README.md"] + ["docs/serving.md"] * (name not in OPENAI)
    for page in pages:
        assert f"`{name}" in (ROOT / page).read_text(encoding="utf-8"), page


@pytest.mark.clause("SAMPLE-51", "API-04")
@pytest.mark.parametrize("name", [*FILTERS, *EDITS])
def test_every_filter_and_edit_is_a_field_of_the_api(name: str) -> None:
    value = examples(name)[0]
    assert name in SamplingBody.model_fields
    for body in (
        ChatRequest.model_validate({"messages": [{"role": "user", "content": "a"}], name: value}),
        CompletionRequest.model_validate({"prompt": "a", name: value}),
    ):
        assert getattr(sampling_params(body), name) == value


@pytest.mark.clause("SAMPLE-51", "SAMPLE-15")
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_accepted_in_its_range_only(name: str) -> None:
    for value in examples(name):
        limit = {"max_tokens": None} if name == "min_tokens" else {}
        assert getattr(SamplingParams(**{name: value, **limit}), name) == value
    if NUMBERS[name].also_off is not None:
        assert getattr(SamplingParams(**{name: NUMBERS[name].also_off}), name) == NUMBERS[name].default
    for value in refused(name):
        with pytest.raises(InvalidParameter, match=name):
            SamplingParams(**{name: value})
    assert {each.name: each.default for each in fields(SamplingParams)}[name] == NUMBERS[name].default
